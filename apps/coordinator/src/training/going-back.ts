import { ConvoyError } from '@convoy/errors'
import type { TrainingConfig } from '../config.ts'
import type { Report } from '../events.ts'
import type { Divergence } from './divergence.ts'
import { betweenEpochs, type Progress, type State } from './state.ts'

/** Halvings of the rate before a run that keeps diverging is given up. */
const MOST_HALVINGS = 6

/** Where the training has to go back to: a state of this step or an earlier one. */
interface Rewind {
  readonly to: number
  /** The rate's further factor from there on. */
  readonly rateFactor: number
  readonly reason: string
}

/** Where the run's earlier states are kept. */
export interface EarlierStates {
  /** The newest good state of step `last` or before, or else the run's beginning; what came after it is forgotten. */
  rewind(last: number): Promise<State>
  /** Keeps the present state. */
  save(): Promise<void>
}

/** What can be put back into an earlier state. */
export interface Restorable {
  readonly progress: Progress
  restore(state: State): void
}

/**
 * Going back: for gradients that are in doubt, to before them; after a divergence, to an earlier epoch, to go on from there
 * at a lower rate; or, where that is not asked for or has not helped, the end.
 */
export class GoingBack {
  readonly #onDivergence: TrainingConfig['onDivergence']
  readonly #stepsPerEpoch: number
  readonly #report: Report
  #rewind: Rewind | undefined
  #diverged: ConvoyError | undefined
  /** At which steps this session lowered the rate, and to which factor. */
  readonly #lowered = new Map<number, number>()

  constructor(onDivergence: TrainingConfig['onDivergence'], stepsPerEpoch: number, report: Report) {
    this.#onDivergence = onDivergence
    this.#stepsPerEpoch = stepsPerEpoch
    this.#report = report
  }

  /** Whether training cannot go on from where it stands. */
  get due(): boolean {
    return this.#rewind !== undefined || this.#diverged !== undefined
  }

  /** Gradients since step `to` are in doubt. */
  doubt(to: number, reason: string): void {
    this.#rewind ??= { to, rateFactor: 1, reason }
  }

  /** The training went wrong for good. */
  diverged({ reason, message }: Divergence, progress: Progress): void {
    const { step, epoch, rateFactor, loweredAt = -1 } = progress
    if (this.#onDivergence === 'rollback' && rateFactor > 2 ** -MOST_HALVINGS) {
      // Where a test found it, the epoch's end is no good state; nor is one that was gone back to already.
      const end = (betweenEpochs(progress) ? epoch - 1 : epoch) * this.#stepsPerEpoch
      const good = loweredAt >= end ? Math.max(0, loweredAt - this.#stepsPerEpoch) : end
      // Of a start that never learned there is none but the first.
      const to = reason === 'deadStart' ? 0 : good
      this.#rewind = { to, rateFactor: 0.5, reason: message }
    } else {
      this.#diverged = new ConvoyError(
        'E_DIVERGED',
        `the training diverged at step ${step}: ${message}`,
        reason === 'deadStart'
          ? 'Try another --seed, a higher or lower --learning-rate, or --initialisation heNormal.'
          : 'Lower --learning-rate, or give --clip-norm 1, or --on-divergence rollback; the last good checkpoint stays.',
      )
    }
  }

  /** Goes back where that is due; resolves with whether it was. Throws E_DIVERGED where the training is to end by it. */
  async goBack(training: Restorable, states: EarlierStates): Promise<boolean> {
    if (this.#diverged) throw this.#diverged
    if (!this.#rewind) return false
    const { to, rateFactor, reason } = this.#rewind
    this.#rewind = undefined
    const from = training.progress.step
    const factor = training.progress.rateFactor * rateFactor
    if (rateFactor < 1) {
      training.restore(await states.rewind(to))
      this.#lower(to, factor, training.progress)
      // At once, so that a run that is resumed has the new rate too.
      if (training.progress.step === to) await states.save()
    } else if (to < from && factor < 1) {
      // Whether it was right to lower the rate is in doubt as well.
      const beginning = await states.rewind(-1)
      this.#lowered.clear()
      training.restore(beginning)
    } else if (to < from) training.restore(await states.rewind(to))
    // Otherwise nothing was applied since: the step at hand is done again.
    const { step } = training.progress
    const now = rateFactor < 1 ? factor : training.progress.rateFactor
    this.#report({ event: 'rolledBack', from, to: step, rateFactor: now, reason })
    return true
  }

  /**
   * Has the schedule's rate multiplied by `factor` from step `at` on. Where the present state is an earlier one, since the disk
   * refused the later, the steps up to there are repeated as they were.
   */
  #lower(at: number, factor: number, progress: Progress): void {
    for (const step of this.#lowered.keys()) if (step > at) this.#lowered.delete(step)
    this.#lowered.set(at, factor)
    this.lowerWhenDue(progress)
  }

  /** Lowers the rate where it was lowered before, when the steps up to there are repeated. */
  lowerWhenDue(progress: Progress): void {
    const factor = this.#lowered.get(progress.step)
    if (factor === undefined) return
    progress.rateFactor = factor
    progress.loweredAt = progress.step
  }
}
