import { parameterLayout, trainedLayout, trainedRanges, type TrainedRange } from './layout.ts'
import type { ModelSpec } from './spec.ts'

/**
 * Which parameters are trained, and where: gradients, wire, tree and optimizer have the trained ones alone, one behind
 * another; workers, checkpoints and files have all.
 */
export class TrainedParameters {
  /** How many there are. */
  readonly size: number
  /** Whether there are others, which are frozen. */
  readonly partial: boolean
  readonly #ranges: readonly TrainedRange[]
  readonly #all: number

  constructor(model: ModelSpec) {
    this.#ranges = trainedRanges(model)
    this.#all = parameterLayout(model).size
    this.size = trainedLayout(model).size
    this.partial = this.size < this.#all
  }

  /** Of numbers for all parameters, those of the trained ones. */
  gather(all: Float32Array, trained: Float32Array = new Float32Array(this.size)): Float32Array {
    for (const { parameter, gradient, size } of this.#ranges)
      trained.set(all.subarray(parameter, parameter + size), gradient)
    return trained
  }

  /** Puts numbers [first, end) of the trained parameters into their places, and returns up to where all is in place. */
  scatter(trained: Float32Array, first: number, end: number, all: Float32Array): number {
    for (const { parameter, gradient, size } of this.#ranges) {
      const from = Math.max(first, gradient)
      const to = Math.min(end, gradient + size)
      if (from < to) all.set(trained.subarray(from, to), parameter + from - gradient)
      // The next ones begin here.
      if (end < gradient + size) return parameter + end - gradient
    }
    return all.length
  }

  /** Numbers for all parameters, 0 for those that are frozen; the same array where none is. */
  spread(trained: Float32Array): Float32Array {
    if (!this.partial) return trained
    const all = new Float32Array(this.#all)
    this.scatter(trained, 0, trained.length, all)
    return all
  }
}
