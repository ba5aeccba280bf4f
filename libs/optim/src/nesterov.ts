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
  /** v, float32, one for each parameter. */
  readonly velocity: Float32Array
  readonly #options: SgdOptions
  /** Cuts of the parameters: [from, to, weight decay], in order, without gaps. */
  readonly #ranges: readonly (readonly [from: number, to: number, decay: number])[]

  /** @param velocity Where v stands; it is updated in place. */
  constructor(velocity: Float32Array, options: SgdOptions) {
    this.velocity = velocity
    this.#options = options
    const ranges: [number, number, number][] = []
    let at = 0
    for (const [offset, size] of options.decayed) {
      if (offset > at) ranges.push([at, offset, 0])
      ranges.push([offset, offset + size, options.weightDecay])
      at = offset + size
    }
    if (at < velocity.length) ranges.push([at, velocity.length, 0])
    this.#ranges = ranges
  }

  /**
   * One update.
   *
   * @param from w before the update.
   * @param to Receives w after it; may be `from`.
   * @param gradientSum Sum over the samples of the loss's gradient.
   * @param count How many samples the sum is over.
   * @param rate η.
   * @returns The global norm of the mean gradient, before clipping and weight decay.
   */
  update(
    from: Float32Array,
    to: Float32Array,
    gradientSum: Float32Array,
    count: number,
    rate: number,
  ): { gradientNorm: number } {
    const { momentum, nesterov, clipNorm } = this.#options
    const { velocity } = this
    const gradientNorm = norm(gradientSum) / count
    const scale = (clipNorm > 0 && gradientNorm > clipNorm ? clipNorm / gradientNorm : 1) / count
    const ahead = nesterov ? 1 : 0
    for (const [first, end, decay] of this.#ranges) {
      sweep(from, to, velocity, gradientSum, first, end, momentum, ahead, rate, scale, decay)
    }
    return { gradientNorm }
  }
}

/** The update of elements [first, end). A function of its own on plain arguments: engines compile that four times faster. */
function sweep(
  from: Float32Array,
  to: Float32Array,
  velocity: Float32Array,
  gradientSum: Float32Array,
  first: number,
  end: number,
  momentum: number,
  ahead: number,
  rate: number,
  scale: number,
  decay: number,
): void {
  for (let i = first; i < end; i++) {
    const w = from[i]
    const push = rate * (gradientSum[i] * scale + decay * w)
    // The v that is stored is what counts: it is the one that a checkpoint keeps.
    const v = Math.fround(momentum * velocity[i] - push)
    velocity[i] = v
    to[i] = ahead ? w + momentum * v - push : w + v
  }
}

/** The Euclidean norm, in float64 with four sums that are added in a fixed order: four additions can overlap. */
export function norm(values: Float32Array): number {
  let a = 0
  let b = 0
  let c = 0
  let d = 0
  const whole = values.length - (values.length % 4)
  for (let i = 0; i < whole; i += 4) {
    a += values[i] * values[i]
    b += values[i + 1] * values[i + 1]
    c += values[i + 2] * values[i + 2]
    d += values[i + 3] * values[i + 3]
  }
  for (let i = whole; i < values.length; i++) a += values[i] * values[i]
  return Math.sqrt(a + b + (c + d))
}
