import {
  leafAt,
  parseSizes,
  sizeAt,
  sizeChanges,
  workBetween,
  type Dataset,
  type SizeChange,
  type Stage,
} from '@convoy/data'
import type { TrainingConfig } from '../config.ts'
import type { Length } from './schedule.ts'

/** Images of one size. */
export interface Size {
  /** Height and width, where they are smaller than the stored images. */
  readonly size: number | undefined
  /** How many an engine computes at once. */
  readonly microBatch: number
  /** How many a leaf has: the same, or those of a replica's round. */
  readonly leaf: number
  /** What one costs beside one of full size. */
  readonly cost: number
}

/** Which size images have in each step of a run: smaller ones at first cost less (`--sizes`). */
export class Sizes {
  readonly #length: Length
  readonly #stages: readonly Stage[]
  readonly #changes: SizeChange[]
  readonly #sizes: ReadonlyMap<number, Size>

  /** Throws E_USAGE where the sizes are not possible. */
  constructor(config: TrainingConfig, { shape }: Pick<Dataset, 'shape'>, length: Length) {
    const { sizes, preprocessing, microBatch } = config
    const { rounds } = length
    const batchSize = rounds?.batchSize ?? length.batchSize
    const [full] = shape
    const sizeOf = (size: number | undefined, microBatch: number, cost: number): Size => ({
      ...{ size, microBatch, cost, leaf: rounds ? rounds.steps * batchSize : microBatch },
    })
    this.#length = length
    this.#stages =
      sizes === undefined ? [{ size: full, share: 1_000_000 }] : parseSizes(sizes, shape, preprocessing)
    this.#changes = sizeChanges(this.#stages, length.totalSteps)
    this.#sizes = new Map(
      this.#stages.map(({ size }): [number, Size] => [
        size,
        size === full
          ? sizeOf(undefined, microBatch, 1)
          : sizeOf(size, leafAt(size, full, microBatch, batchSize), (size * size) / (full * full)),
      ]),
    )
  }

  /** Those of the images that the gradient of step `step` is of. */
  at(step: number): Size {
    return this.#sizes.get(sizeAt(this.#stages, step, this.#length.totalSteps))!
  }

  /** Those that are smaller than the stored images. */
  get smaller(): { size: number; microBatch: number }[] {
    return [...this.#sizes.values()].flatMap(({ size, microBatch }) =>
      size === undefined ? [] : [{ size, microBatch }],
    )
  }

  /** Where they change in the run; undefined where all images are as they are stored. */
  get changes(): SizeChange[] | undefined {
    return this.smaller.length > 0 ? this.#changes : undefined
  }

  /** What so many updates cost, in epochs at full size; those of the whole run where left out. */
  work(steps = Infinity): number {
    const { totalSteps, stepsPerEpoch } = this.#length
    return workBetween(this.#changes, 0, Math.min(steps, totalSteps)) / stepsPerEpoch
  }
}
