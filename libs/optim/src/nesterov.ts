import type { Arena, Slot } from '@convoy/arena'
import { Optimizer, type OptimizerOptions, type Rule } from './optimizer.ts'

export interface SgdOptions extends OptimizerOptions {
  /** μ, from 0 to below 1. */
  readonly momentum: number
  /** Nesterov's look-ahead; without it, classical momentum. */
  readonly nesterov: boolean
  /** L2: this times the variable is added to its gradient (the gradient of weightDecay/2·|w|²). Not Keras's `decay`. */
  readonly weightDecay: number
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
export class NesterovSgd extends Optimizer {
  /**
   * @param arena Where it computes.
   * @param variables w to start with, copied.
   * @param velocity v to start with, copied.
   */
  constructor(arena: Arena, variables: Float32Array, velocity: Float32Array, options: SgdOptions) {
    const { momentum, nesterov, weightDecay } = options
    const held = arena.hold(velocity)
    const rule: Rule = {
      velocity: held,
      move(w: Slot, g: Slot, [first, end], rate, scale, kernel) {
        const decay = kernel ? weightDecay : 0
        arena.update(w, held, g, first, end, { momentum, nesterov, rate, scale, decay })
      },
    }
    super(arena, variables, rule, options)
  }
}
