import { ConvoyError } from '@convoy/errors'
import { makeDataset, type Dataset, type Split } from './dataset.ts'
import type { SourceFile } from './source.ts'

/** The binary files of CIFAR-10 and CIFAR-100 (Krizhevsky 2009): https://www.cs.toronto.edu/~kriz/cifar.html */

const PLANE = 32 * 32
const CIFAR10_CLASSES = 'airplane automobile bird cat deer dog frog horse ship truck'.split(' ')
/** Where CIFAR-100 has the names of its classes, a line each. */
const FINE_NAMES = 'fine_label_names.txt'
/** Bytes of all files together, with room to spare: the official ones have 184 MB. */
const LARGEST = 256e6

/** How a set's files are called and its records are: label bytes, of which the last counts, and the planes R, G and B. */
interface Format {
  readonly name: string
  readonly train: RegExp
  readonly test: RegExp
  /** Names of its training and test files, for errors. */
  readonly files: readonly [train: string, test: string]
  readonly labels: number
}

const FORMATS: readonly Format[] = [
  {
    name: 'cifar10',
    train: /^data_batch_\d+\.bin$/,
    test: /^test_batch\.bin$/,
    files: ['data_batch_1.bin … data_batch_5.bin', 'test_batch.bin'],
    labels: 1,
  },
  // A coarse label, of 20, and a fine one, of 100.
  {
    name: 'cifar100',
    train: /^train\.bin$/,
    test: /^test\.bin$/,
    files: ['train.bin', 'test.bin'],
    labels: 2,
  },
]

/** Whether a file, by its name, is of one of these sets. */
export function isBatchFile(name: string): boolean {
  return name === FINE_NAMES || FORMATS.some(({ train, test }) => train.test(name) || test.test(name))
}

function formatOf(names: readonly string[]): Format | undefined {
  // `train.bin` may be anything.
  return FORMATS.find(
    ({ name, train, test }) =>
      names.some((file) => train.test(file) || test.test(file)) &&
      (name === 'cifar10' || names.includes(FINE_NAMES)),
  )
}

/** Whether files, by their names, are such a set, if not all of it. */
export function isBatchSet(names: readonly string[]): boolean {
  return formatOf(names) !== undefined
}

/** Refuses files that are larger together than such a set is, before they are read. Throws E_DATA_FORMAT. */
export function checkBatches(files: readonly SourceFile[], origin: string): void {
  const total = files.reduce((sum, { size }) => sum + size, 0)
  if (total <= LARGEST) return
  throw new ConvoyError(
    'E_DATA_FORMAT',
    `the .bin files of ${origin} have ${(total / 1e6).toFixed(0)} MB; those of CIFAR have 184`,
    'Fetch the official archive.',
  )
}

/** Reads records. `name` is for errors. */
function readRecords(
  batches: readonly { name: string; bytes: Uint8Array }[],
  labelBytes: number,
  classes: number,
): Split {
  const record = labelBytes + 3 * PLANE
  for (const { name, bytes } of batches) {
    if (bytes.length === 0 || bytes.length % record !== 0) {
      throw new ConvoyError(
        'E_DATA_TRUNCATED',
        `${name} has ${bytes.length} bytes, which is no multiple of ${record}`,
        'Fetch the archive again.',
      )
    }
  }
  const count = batches.reduce((sum, { bytes }) => sum + bytes.length / record, 0)
  const labels = new Int32Array(count)
  const pixels = new Uint8Array(count * 3 * PLANE)
  let sample = 0
  for (const { name, bytes } of batches) {
    for (let at = 0; at < bytes.length; at += record, sample++) {
      const image = at + labelBytes
      const label = bytes[image - 1]
      if (label >= classes) {
        throw new ConvoyError(
          'E_DATA_FORMAT',
          `${name} has the label ${label}; the set has 0 to ${classes - 1}`,
          'Fetch the archive again.',
        )
      }
      labels[sample] = label
      const into = sample * 3 * PLANE
      for (let i = 0; i < PLANE; i++) {
        pixels[into + 3 * i] = bytes[image + i]!
        pixels[into + 3 * i + 1] = bytes[image + PLANE + i]!
        pixels[into + 3 * i + 2] = bytes[image + 2 * PLANE + i]!
      }
    }
  }
  return { count, labels, pixels }
}

/** The names of CIFAR-100's classes. Throws E_DATA_FORMAT where they are not 100. */
function fineNames(bytes: Uint8Array | undefined, origin: string): string[] {
  const names = Buffer.from(bytes ?? [])
    .toString()
    .split(/\r?\n/)
    .filter((name) => name !== '')
  if (names.length === 100) return names
  throw new ConvoyError(
    'E_DATA_FORMAT',
    `${FINE_NAMES} of ${origin} has ${names.length} names of classes instead of 100`,
    'Fetch the archive again.',
  )
}

/**
 * A data set of the `.bin` files of CIFAR-10, or of CIFAR-100 with its fine labels, by their names. Throws E_DATA_FORMAT where
 * training or test files are missing, E_DATA_TRUNCATED where one is cut off.
 */
export function fromBatches(files: ReadonlyMap<string, Uint8Array>, origin: string): Dataset {
  const format = formatOf([...files.keys()])!
  const named = (pattern: RegExp) =>
    [...files]
      .filter(([name]) => pattern.test(name))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, bytes]) => ({ name, bytes }))
  const [train, test] = [named(format.train), named(format.test)]
  if (train.length === 0 || test.length === 0) {
    throw new ConvoyError(
      'E_DATA_FORMAT',
      `${origin} lacks ${format.files[train.length === 0 ? 0 : 1]}`,
      `Put all of ${format.files.join(' and ')} there.`,
    )
  }
  const classes = format.name === 'cifar10' ? CIFAR10_CLASSES : fineNames(files.get(FINE_NAMES), origin)
  return makeDataset({
    ...{ name: format.name, origin, classes, shape: [32, 32, 3] as const },
    train: readRecords(train, format.labels, classes.length),
    test: readRecords(test, format.labels, classes.length),
  })
}
