import { ConvoyError } from '@convoy/errors'

/** A model compiled for an exact number of samples. */
export interface SizedPlan {
  /** Takes the parameters over. */
  load(): void
  dispose(): void
}

export type Purpose = 'train' | 'predict'

/** Plans kept for one model and purpose: that of whole leaves or batches, and those of the last ones. */
const PLANS = 3

/**
 * The plans of a compiled model, each for exactly as many samples as it is asked for. A larger plan would do for fewer
 * samples, but a library's choices, and so the bits, depend on the size: a leaf's gradient may not depend on which plan was
 * at hand.
 */
export class Plans<P extends SizedPlan> {
  readonly #maxBatch: number
  readonly #make: (count: number, purpose: Purpose) => P
  /** By number of samples, the least recently used first. */
  readonly #plans = {
    train: new Map<number, { readonly plan: P; fresh: boolean }>(),
    predict: new Map<number, { readonly plan: P; fresh: boolean }>(),
  }

  /** @param maxBatch The samples of whole leaves, whose plan is never given up. */
  constructor(maxBatch: number, make: (count: number, purpose: Purpose) => P) {
    this.#maxBatch = maxBatch
    this.#make = make
  }

  /** All that are kept. */
  *[Symbol.iterator](): Generator<P> {
    for (const plans of Object.values(this.#plans)) for (const { plan } of plans.values()) yield plan
  }

  /** Has each plan load parameters before it is used again. */
  outdate(): void {
    for (const plans of Object.values(this.#plans)) for (const entry of plans.values()) entry.fresh = false
  }

  /** The plan for exactly `count` samples, with the parameters in place. */
  take(count: number, purpose: Purpose): P {
    check(count >= 1, `${count} samples`)
    const plans = this.#plans[purpose]
    let entry = plans.get(count)
    if (entry) {
      plans.delete(count)
    } else {
      for (const [other, { plan }] of plans) {
        if (plans.size < PLANS) break
        if (other === this.#maxBatch) continue
        plan.dispose()
        plans.delete(other)
      }
      entry = { plan: this.#make(count, purpose), fresh: false }
    }
    plans.set(count, entry)
    if (!entry.fresh) {
      entry.plan.load()
      entry.fresh = true
    }
    return entry.plan
  }

  /** The plan for a leaf's gradient. Throws E_INTERNAL where leaf or gradient are not what the model was compiled for. */
  takeForGradient(count: number, gradient: { readonly length: number }, gradientSize: number): P {
    const text = `for a model of ${gradientSize} trained parameters that was compiled for at most ${this.#maxBatch} samples`
    check(gradient.length === gradientSize, `a gradient of ${gradient.length} numbers ${text}`)
    check(count <= this.#maxBatch, `${count} samples ${text}`)
    return this.take(count, 'train')
  }

  dispose(): void {
    for (const plan of this) plan.dispose()
    for (const plans of Object.values(this.#plans)) plans.clear()
  }
}

function check(fits: boolean, what: string): void {
  if (fits) return
  throw new ConvoyError(
    'E_INTERNAL',
    what,
    'This should not happen. Run again with --verbose and report what it prints.',
  )
}
