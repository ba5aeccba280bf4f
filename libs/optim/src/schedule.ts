/** The learning rate over time, as data. `t` is the number of updates done before the one at hand, from 0. */
export type Schedule =
  | { readonly kind: 'constant'; readonly rate: number }
  /** Keras's `decay`: rate / (1 + decay·t). */
  | { readonly kind: 'decay'; readonly rate: number; readonly decay: number }
  /** c1 / (t + c2), which meets Robbins and Monro's conditions (1951). */
  | { readonly kind: 'inverse'; readonly c1: number; readonly c2: number }
  /** rate, multiplied by `factor` after each of the `milestones`, in epochs. */
  | {
      readonly kind: 'steps'
      readonly rate: number
      readonly milestones: readonly number[]
      readonly factor: number
    }
  /** Up from near 0 to `rate` over the first `warmup` share of all steps, then down to the share `endRate` of it, both linear. */
  | {
      readonly kind: 'oneCycle'
      readonly rate: number
      readonly warmup: number
      /** From 0, which it is where left out, to 1. */
      readonly endRate?: number
    }

/** Where a run stands. */
export interface Moment {
  /** Updates done. */
  readonly step: number
  readonly stepsPerEpoch: number
  /** Updates of the whole run. */
  readonly totalSteps: number
}

/**
 * The learning rate of the update at hand.
 *
 * Sources: `decay` is Keras 1's and 2's SGD (`lr * 1 / (1 + decay * iterations)`); `steps` is the paper's (×0.1 after
 * epochs 200, 250 and 300 of 350); `oneCycle` after Smith and Topin, "Super-Convergence" (2018), with straight lines.
 */
export function learningRate(schedule: Schedule, { step, stepsPerEpoch, totalSteps }: Moment): number {
  switch (schedule.kind) {
    case 'constant':
      return schedule.rate
    case 'decay':
      return schedule.rate / (1 + schedule.decay * step)
    case 'inverse':
      return schedule.c1 / (step + schedule.c2)
    case 'steps': {
      const passed = schedule.milestones.filter((epoch) => step >= epoch * stepsPerEpoch).length
      return schedule.rate * schedule.factor ** passed
    }
    case 'oneCycle': {
      const top = schedule.warmup * totalSteps
      // The middle of the step counts, so that neither the first nor the last rate is 0.
      const now = step + 0.5
      if (now < top) return schedule.rate * (now / top)
      const { rate, endRate = 0 } = schedule
      return rate * (endRate + (1 - endRate) * (Math.max(0, totalSteps - now) / (totalSteps - top)))
    }
  }
}
