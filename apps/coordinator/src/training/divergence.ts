/** Samples of a window over which the cost is averaged before it is judged. */
const WINDOW = 1_000
/** A cost above so many times its best window, and above that of guessing, is taken for divergence. */
const RISE = 3
/** A start is dead if the best window stays this close to the cost of guessing. */
const DEAD = 0.995
/** Windows that a judgement about a dead start needs, however many updates were done. */
const ENOUGH = 20

/** What a guard knows; kept in checkpoints, so that a resumed run judges as an undisturbed one. */
export interface GuardState {
  /** Sum of the costs and number of samples of the running window. */
  sum: number
  samples: number
  windows: number
  /** The lowest mean cost of a window; null before the first. */
  best: number | null
}

export interface Divergence {
  readonly reason: 'notFinite' | 'lossRose' | 'deadStart'
  readonly message: string
}

/**
 * Watches the cost of the batches before their updates for the ways in which training goes wrong for good. It sees only
 * what is the same in every repetition of a run, so that its judgement is too.
 */
export class DivergenceGuard {
  state: GuardState = { sum: 0, samples: 0, windows: 0, best: null }
  readonly #guessing: number
  readonly #deadAfter: number

  /**
   * @param guessing Mean cost of answering every class alike, in nats: ln(classes) for softmax.
   * @param deadAfter Updates after which a cost that never fell is a dead start; 0 is never.
   */
  constructor(guessing: number, deadAfter: number) {
    this.#guessing = guessing
    this.#deadAfter = deadAfter
  }

  /** Takes the cost of one batch, summed over `samples`, before update number `step`. */
  step(step: number, loss: number, samples: number): Divergence | undefined {
    const { state } = this
    state.sum += loss
    state.samples += samples
    if (state.samples < WINDOW) return undefined
    const mean = state.sum / state.samples
    state.sum = state.samples = 0
    state.windows++
    const { best } = state
    state.best = best === null ? mean : Math.min(best, mean)
    if (best !== null && mean > RISE * best && mean > this.#guessing) {
      return {
        reason: 'lossRose',
        message: `the cost rose to ${mean.toFixed(3)}, from ${best.toFixed(3)} at its best`,
      }
    }
    const due = this.#deadAfter > 0 && step >= this.#deadAfter && state.windows >= ENOUGH
    if (due && state.best > DEAD * this.#guessing) {
      return {
        reason: 'deadStart',
        message: `after ${step} updates the cost is still that of guessing, ${this.#guessing.toFixed(3)}`,
      }
    }
    return undefined
  }
}
