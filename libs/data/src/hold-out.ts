import { ConvoyError } from '@convoy/errors'
import { Purpose, RandomStream } from '@convoy/random'
import { makeDataset, type Dataset, type Split } from './dataset.ts'
import { shuffle } from './order.ts'

/**
 * Keeps training images aside as the test set, for tuning: of each class as near its share as can be, drawn by `seed`.
 *
 * The data set is given up to it: what stays moves together within the array of all training images, of which there would
 * be two otherwise, so `dataset` is not to be used afterwards.
 *
 * Throws E_USAGE where a class would have no image left to train on.
 */
export function holdOut(dataset: Dataset, count: number, seed: number): Dataset {
  const { train, classes } = dataset
  const members: number[][] = classes.map(() => [])
  train.labels.forEach((label, sample) => members[label].push(sample))
  const most = members.reduce((sum, { length }) => sum + Math.max(0, length - 1), 0)
  if (count > most) {
    throw new ConvoyError(
      'E_USAGE',
      `--hold-out ${count} leaves a class without images to train on`,
      `Hold out at most ${most} of the ${train.count} training images.`,
    )
  }
  const held = new Uint8Array(train.count)
  quotas(
    members.map(({ length }) => length),
    count,
  ).forEach((quota, label) => {
    const order = Uint32Array.from(members[label])
    shuffle(order, new RandomStream(seed, Purpose.holdOut, label))
    for (const sample of order.subarray(0, quota)) held[sample] = 1
  })
  const test = take(train, held, count)
  return makeDataset({
    ...dataset,
    origin: `${dataset.origin}; ${count} training images, held out, are the test set`,
    train: compact(train, held, train.count - count),
    test,
  })
}

/** Shares `count` out in proportion to `sizes`, of each at most all but one (by largest remainder). */
function quotas(sizes: readonly number[], count: number): number[] {
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const given = sizes.map(() => 0)
  for (let i = 0; i < count; i++) {
    let best = -1
    let most = -Infinity
    sizes.forEach((size, label) => {
      const lacking = count * size - total * given[label]
      if (given[label] >= size - 1 || lacking <= most) return
      best = label
      most = lacking
    })
    given[best]++
  }
  return given
}

/** A copy of the samples that are held out. */
function take({ pixels, labels }: Split, held: Uint8Array, count: number): Split {
  const volume = pixels.length / labels.length
  const into =
    pixels instanceof Uint8Array ? new Uint8Array(count * volume) : new Float32Array(count * volume)
  const taken = new Int32Array(count)
  let to = 0
  held.forEach((out, sample) => {
    if (!out) return
    into.set(pixels.subarray(sample * volume, (sample + 1) * volume), to * volume)
    taken[to++] = labels[sample]
  })
  return { count, pixels: into, labels: taken }
}

/** The other samples, moved together where they are. */
function compact({ pixels, labels }: Split, held: Uint8Array, count: number): Split {
  const volume = pixels.length / labels.length
  let to = 0
  held.forEach((out, sample) => {
    if (out) return
    pixels.copyWithin(to * volume, sample * volume, (sample + 1) * volume)
    labels[to++] = labels[sample]
  })
  return { count, pixels: pixels.subarray(0, count * volume), labels: labels.subarray(0, count) }
}
