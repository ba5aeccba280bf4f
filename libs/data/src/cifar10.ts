import { checksum, download } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { mkdir, readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { makeDataset, type Dataset, type Split } from './dataset.ts'

/** The official archive: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. */
export const CIFAR10_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
export const CIFAR10_MD5 = 'c32a1d4ab5d03f1284b67883e8d87530'

const CLASSES = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']
const PLANE = 32 * 32
/** A record is one label byte and the planes R, G and B. */
const RECORD = 1 + 3 * PLANE

export const isBatchFile = (name: string) => /^(data_batch_\d+|test_batch)\.bin$/.test(name)

/** Reads records of the official format. `name` is for errors. */
function readRecords(batches: readonly { name: string; bytes: Uint8Array }[]): Split {
  for (const { name, bytes } of batches) {
    if (bytes.length === 0 || bytes.length % RECORD !== 0) {
      throw new ConvoyError(
        'E_DATA_TRUNCATED',
        `${name} has ${bytes.length} bytes, which is no multiple of ${RECORD}`,
        'Fetch the archive again.',
      )
    }
  }
  const count = batches.reduce((sum, { bytes }) => sum + bytes.length / RECORD, 0)
  const labels = new Int32Array(count)
  const pixels = new Uint8Array(count * 3 * PLANE)
  let sample = 0
  for (const { name, bytes } of batches) {
    for (let at = 0; at < bytes.length; at += RECORD, sample++) {
      const label = bytes[at]
      if (label >= CLASSES.length) {
        throw new ConvoyError(
          'E_DATA_FORMAT',
          `${name} has the label ${label}; CIFAR-10 has 0 to 9`,
          'Fetch the archive again.',
        )
      }
      labels[sample] = label
      const into = sample * 3 * PLANE
      for (let i = 0; i < PLANE; i++) {
        pixels[into + 3 * i] = bytes[at + 1 + i]!
        pixels[into + 3 * i + 1] = bytes[at + 1 + PLANE + i]!
        pixels[into + 3 * i + 2] = bytes[at + 1 + 2 * PLANE + i]!
      }
    }
  }
  return { count, labels, pixels }
}

/**
 * A data set of the official `.bin` files, by their names. Throws E_DATA_FORMAT where training or test files are missing,
 * E_DATA_TRUNCATED where one is cut off.
 */
export function fromBatches(files: ReadonlyMap<string, Uint8Array>, origin: string): Dataset {
  const named = (pattern: RegExp) =>
    [...files]
      .filter(([name]) => pattern.test(name))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, bytes]) => ({ name, bytes }))
  const train = named(/^data_batch_/)
  const test = named(/^test_batch/)
  if (train.length === 0 || test.length === 0) {
    throw new ConvoyError(
      'E_DATA_FORMAT',
      `${origin} lacks ${train.length === 0 ? 'data_batch_1.bin …' : 'test_batch.bin'}`,
      'Put all of data_batch_1.bin … data_batch_5.bin and test_batch.bin there.',
    )
  }
  return makeDataset({
    name: 'cifar10',
    origin,
    classes: CLASSES,
    shape: [32, 32, 3],
    train: readRecords(train),
    test: readRecords(test),
  })
}

export interface FetchOptions {
  readonly directory: string
  readonly url: string
  readonly md5: string
  /** No answer within this is a no, in milliseconds. */
  readonly timeout: number
  readonly progress: (text: string) => void
  /** Proxies, and whether anything may be fetched. */
  readonly environment: NodeJS.ProcessEnv
}

/** Where the archive is kept once it was fetched and its checksum found right. */
export function archivePath(directory: string): string {
  return path.join(directory, 'cifar-10-binary.tar.gz')
}

/**
 * Fetches the official archive into the cache, going on where a broken fetch stopped, and checks its sum.
 *
 * Throws E_DATA_DOWNLOAD where there is no answer or it breaks off (what came is kept), E_DATA_CHECKSUM where the file is
 * not the right one (it is removed).
 */
export async function fetchArchive(options: FetchOptions): Promise<string> {
  const { directory, url, md5, timeout, progress, environment } = options
  const file = archivePath(directory)
  if (await stat(file).catch(() => undefined)) return file
  const partial = `${file}.part`
  await mkdir(directory, { recursive: true })
  const remedy = `Run again to go on where it stopped; or put the file at ${file} yourself; or use --data FOLDER or --data synthetic.`
  try {
    await download({ what: 'CIFAR-10', url, partial, timeout, progress, environment })
  } catch (error) {
    throw new ConvoyError('E_DATA_DOWNLOAD', (error as Error).message, remedy, { cause: error })
  }
  const sum = await checksum('md5', partial)
  if (sum !== md5) {
    await rm(partial, { force: true })
    throw new ConvoyError(
      'E_DATA_CHECKSUM',
      `${url} has md5 ${sum} instead of ${md5}`,
      'Run again to fetch it anew, or check what stands between.',
    )
  }
  await rename(partial, file)
  return file
}

/** The `.bin` files of a folder, by name. */
export async function readBatchFolder(
  folder: string,
  names: readonly string[],
): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>()
  for (const name of names) files.set(name, await readFile(path.join(folder, name)))
  return files
}
