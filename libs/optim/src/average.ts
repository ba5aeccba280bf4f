import type { Arena, Slot } from '@convoy/arena'

export interface AverageOptions {
  /** d: the share that the average keeps, from 0 to below 1. */
  readonly decay: number
  /** It is moved after so many updates each. */
  readonly every: number
}

/**
 * Exponential moving average of parameters (Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992;
 * TensorFlow's `ExponentialMovingAverage`): w̄ ← d·w̄ + (1 - d)·w, with d at most (1 + t)/(10 + t) in its t-th move from 0, so that the
 * start is soon forgotten. Numbers are float64 within a move and rounded to float32 where stored.
 */
export class MovingAverage {
  readonly #arena: Arena
  readonly #average: Slot
  readonly #options: AverageOptions

  /** @param parameters w̄ to start with, copied. */
  constructor(arena: Arena, parameters: Float32Array, options: AverageOptions) {
    this.#arena = arena
    this.#average = arena.hold(parameters)
    this.#options = options
  }

  /** w̄, float32: all that it keeps. Valid until the next update. */
  get parameters(): Float32Array {
    return this.#average.values
  }

  /** Goes on from this w̄. */
  restore(parameters: Float32Array): void {
    this.#average.values.set(parameters)
  }

  /**
   * Follows an update.
   *
   * @param parameters w, in the same arena.
   * @param step Updates done, with this one.
   */
  update(parameters: Slot, step: number): void {
    const { decay, every } = this.#options
    if (step % every !== 0) return
    const t = step / every - 1
    this.#arena.approach(this.#average, parameters, 1 - Math.min(decay, (1 + t) / (10 + t)))
  }
}
