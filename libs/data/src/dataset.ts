import { createHash } from 'node:crypto'
import { Purpose, RandomStream } from '@convoy/random'
import { shuffle } from './order.ts'

/** A set of images, decoded, in memory. */
export interface Split {
  readonly count: number
  /**
   * [count, height, width, channels]: bytes as decoded, or float32 where the images were whitened as a whole when
   * the set was prepared.
   */
  readonly pixels: Uint8Array | Float32Array
  /** [count], each from 0 to classes - 1. */
  readonly labels: Int32Array
}

export interface Dataset {
  /** Such as `cifar10`. */
  readonly name: string
  /** Where it came from and why it was taken, in one line for a person. */
  readonly origin: string
  /** SHA-256 in hex over shape, class names, labels and pixels of both splits. */
  readonly fingerprint: string
  readonly classes: readonly string[]
  /** [height, width, channels] of every image. */
  readonly shape: readonly [height: number, width: number, channels: number]
  readonly train: Split
  readonly test: Split
  /** What a user should know of how it was read: what was left out, what looks wrong. A sentence each. */
  readonly notes?: readonly string[]
  /** Images that were left out since they cannot be decoded, each with the reason. */
  readonly skipped?: readonly string[]
}

const bytesOf = (view: ArrayBufferView) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength)

/** Makes a data set of its parts, with its fingerprint. */
export function makeDataset(parts: Omit<Dataset, 'fingerprint'>): Dataset {
  const hash = createHash('sha256').update(JSON.stringify([parts.shape, parts.classes]))
  for (const { labels, pixels } of [parts.train, parts.test])
    hash.update(bytesOf(labels)).update(bytesOf(pixels))
  return { ...parts, fingerprint: hash.digest('hex') }
}

/** `count` samples of a split, drawn without replacement by a key of their own: the same whatever the run's seed. */
function subset(split: Split, count: number): Split {
  if (count >= split.count) return split
  const order = new Uint32Array(split.count).map((_, i) => i)
  shuffle(order, new RandomStream(0, Purpose.subset))
  const chosen = order.slice(0, count).sort()
  const volume = split.pixels.length / split.count
  const pixels =
    split.pixels instanceof Uint8Array ? new Uint8Array(count * volume) : new Float32Array(count * volume)
  const labels = new Int32Array(count)
  chosen.forEach((sample, i) => {
    pixels.set(split.pixels.subarray(sample * volume, (sample + 1) * volume), i * volume)
    labels[i] = split.labels[sample]!
  })
  return { count, pixels, labels }
}

/** A data set with at most so many training and test images; it has a fingerprint of its own. */
export function limit(dataset: Dataset, train?: number, test?: number): Dataset {
  const limited = {
    ...dataset,
    train: subset(dataset.train, train ?? Infinity),
    test: subset(dataset.test, test ?? Infinity),
  }
  return limited.train === dataset.train && limited.test === dataset.test ? dataset : makeDataset(limited)
}

/** A data set with labels of `classes`, which hold all of its own, in whatever order. */
export function withClasses(dataset: Dataset, classes: readonly string[]): Dataset {
  if (JSON.stringify(classes) === JSON.stringify(dataset.classes)) return dataset
  const numbers = dataset.classes.map((label) => classes.indexOf(label))
  const relabelled = (split: Split) => ({ ...split, labels: split.labels.map((label) => numbers[label]) })
  return makeDataset({
    ...dataset,
    classes,
    train: relabelled(dataset.train),
    test: relabelled(dataset.test),
  })
}
