import type { Dataset, Split } from './dataset.ts'
import type { PreprocessingSpec } from './preprocessing.ts'

/** Per-channel mean and deviation of the pixels, in 0 … 1. Exact sums of whole numbers, so the same everywhere. */
export function channelStatistics(split: Split, channels: number): { mean: number[]; deviation: number[] } {
  const histogram = Array.from({ length: channels }, () => new Float64Array(256))
  const { pixels } = split
  for (let i = 0; i < pixels.length; i += channels) {
    for (let c = 0; c < channels; c++) histogram[c][pixels[i + c]]++
  }
  const total = pixels.length / channels
  const mean: number[] = []
  const deviation: number[] = []
  for (const counts of histogram) {
    let sum = 0
    let squares = 0
    counts.forEach((n, value) => {
      sum += n * value
      squares += n * value * value
    })
    mean.push(sum / total / 255)
    deviation.push(Math.max(Math.sqrt(squares / total - (sum / total) ** 2) / 255, 1e-6))
  }
  return { mean, deviation }
}

/** The per-channel normalisation of a data set, measured on its training images. */
export function channelNormalisation(dataset: Dataset): PreprocessingSpec {
  return { kind: 'channels', ...channelStatistics(dataset.train, dataset.shape[2]) }
}

export interface DatasetDescription {
  readonly name: string
  readonly origin: string
  readonly fingerprint: string
  readonly classes: readonly string[]
  readonly shape: readonly number[]
  readonly trainCounts: readonly number[]
  readonly testCounts: readonly number[]
  /** By channel, of the training images, in 0 … 1. */
  readonly mean: readonly number[]
  readonly deviation: readonly number[]
  readonly notes: readonly string[]
  /** Images that were left out, each with the reason. */
  readonly skipped: readonly string[]
}

/** How many images each class has. */
export function countLabels({ classes, train, test }: Pick<Dataset, 'classes' | 'train' | 'test'>) {
  const counts = ({ labels }: Split) => {
    const each = classes.map(() => 0)
    for (const label of labels) each[label]++
    return each
  }
  return { trainCounts: counts(train), testCounts: counts(test) }
}

/** What `convoy data info` tells. */
export function describeDataset(dataset: Dataset): DatasetDescription {
  const { name, origin, fingerprint, classes, shape, train, notes = [], skipped = [] } = dataset
  const statistics = channelStatistics(train, shape[2])
  return {
    name,
    origin,
    fingerprint,
    classes,
    shape,
    ...countLabels(dataset),
    ...statistics,
    notes,
    skipped,
  }
}
