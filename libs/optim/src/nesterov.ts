import type { Arena, Slot } from '@convoy/arena'

/** Elements of a part: 1 MB of float32. */
const PART = 1 << 18

export interface SgdOptions {
  /** μ, from 0 to below 1. */
  readonly momentum: number
  /** Nesterov's look-ahead; without it, classical momentum. */
  readonly nesterov: boolean
  /** L2: this times the parameter is added to its gradient (the gradient of weightDecay/2·|w|²). Not Keras's `decay`. */
  readonly weightDecay: number
  /** The ranges [offset, size] of the parameters that weight decay holds for. */
  readonly decayed: readonly (readonly [offset: number, size: number])[]
  /** The largest global norm of the mean gradient (Pascanu et al. 2013); 0 is off. */
  readonly clipNorm: number
}

/**
 * SGD with momentum in Keras's form:
 *
 *     v ← μ·v − η·g
 *     w ← w + μ·v − η·g     (Nesterov)      w ← w + v     (classical)
 *
 * Sources: Keras `SGD(momentum, nesterov)`; Sutskever et al., "On the importance of initialization and momentum in deep
 * learning" (2013). Numbers are float64 within an update and rounded to float32 where stored, in one fixed order, so the
 * result is the same bits wherever it runs.
 */
export class NesterovSgd {
  readonly #arena: Arena
  readonly #w: Slot
  readonly #v: Slot
  readonly #options: SgdOptions
  /** Cuts of the parameters: [from, to, weight decay], in order, without gaps. */
  readonly #ranges: readonly (readonly [from: number, to: number, decay: number])[]

  /**
   * @param arena Where it computes.
   * @param parameters w to start with, copied.
   * @param velocity v to start with, copied.
   */
  constructor(arena: Arena, parameters: Float32Array, velocity: Float32Array, options: SgdOptions) {
    this.#arena = arena
    this.#w = arena.hold(parameters)
    this.#v = arena.hold(velocity)
    this.#options = options
    const ranges: [number, number, number][] = []
    let at = 0
    for (const [offset, size] of options.decayed) {
      if (offset > at) ranges.push([at, offset, 0])
      ranges.push([offset, offset + size, options.weightDecay])
      at = offset + size
    }
    if (at < arena.size) ranges.push([at, arena.size, 0])
    this.#ranges = ranges
  }

  /** w, float32. Valid until the next update. */
  get parameters(): Float32Array {
    return this.#w.values
  }

  /** v, float32, one for each parameter. Valid until the next update. */
  get velocity(): Float32Array {
    return this.#v.values
  }

  /**
   * One update.
   *
   * @param gradientSum Sum over the samples of the loss's gradient, in the same arena.
   * @param count How many samples the sum is over.
   * @param rate η.
   * @param done Told after each part, from the front: elements [first, end) are updated. So much can be sent on its way
   *   while the rest is computed.
   * @returns The global norm of the mean gradient, before clipping and weight decay.
   */
  update(
    gradientSum: Slot,
    count: number,
    rate: number,
    done?: (first: number, end: number) => void,
  ): { gradientNorm: number } {
    const { momentum, nesterov, clipNorm, weightDecay } = this.#options
    const gradientNorm = this.#arena.norm(gradientSum) / count
    const scale = (clipNorm > 0 && gradientNorm > clipNorm ? clipNorm / gradientNorm : 1) / count
    const plain = { momentum, nesterov, rate, scale, decay: 0 }
    const decayed = { ...plain, decay: weightDecay }
    for (let part = 0; part < this.#arena.size; part += PART) {
      const partEnd = Math.min(this.#arena.size, part + PART)
      for (const [rangeFirst, rangeEnd, decay] of this.#ranges) {
        const first = Math.max(part, rangeFirst)
        const end = Math.min(partEnd, rangeEnd)
        const how = decay === 0 ? plain : decayed
        if (first < end) this.#arena.update(this.#w, this.#v, gradientSum, first, end, how)
      }
      done?.(part, partEnd)
    }
    return { gradientNorm }
  }
}
