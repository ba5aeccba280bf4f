import { cacheDirectory } from '@convoy/download'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import { createHash } from 'node:crypto'
import { createReadStream, type Dirent } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { readArchive } from './archive.ts'
import { cacheKey, readCached, writeCached } from './cache.ts'
import {
  CIFAR10_MD5,
  CIFAR10_URL,
  fetchArchive,
  fromBatches,
  isBatchFile,
  readBatchFolder,
} from './cifar10.ts'
import { limit, type Dataset } from './dataset.ts'
import { holdOut } from './hold-out.ts'
import { fromImages, parseImagePath, type LabelledFile } from './images.ts'
import { synthetic } from './synthetic.ts'

export interface LoadOptions {
  /** Height and width that images are resized to; 32 by default. */
  readonly size?: number
  /** Use only so many images. */
  readonly limitTrain?: number
  readonly limitTest?: number
  /** Test on so many of the training images, which are not trained on, instead of the test set; drawn before the limits. */
  readonly holdOut?: number
  /** Where fetched and converted sets are kept; the user's cache by default. */
  readonly cacheDirectory?: string
  readonly progress?: (text: string) => void
  readonly warn?: (text: string) => void
  /** For tests: another address and sum of the CIFAR-10 archive, and how long to wait for it, in milliseconds. */
  readonly url?: string
  readonly md5?: string
  readonly timeout?: number
  readonly environment?: NodeJS.ProcessEnv
}

/** How many images `synthetic` draws unless told otherwise. */
const SYNTHETIC = { train: 10_000, test: 1_000, seed: 1 } as const
/** Draws what is held out: the same whatever the run's seed, so that runs of several seeds are tested on the same images. */
const HOLD_OUT_SEED = 0
/** No answer within this is a no, in milliseconds. */
const NO_ANSWER = 3_000

const isArchive = (name: string) => /\.(tar|tar\.gz|tgz)$/.test(name)

/**
 * Loads a data set.
 *
 * @param source `auto`, `cifar10`, `synthetic`, or a path: a folder or archive of `train/<class>/*` and
 *   `test/<class>/*` images, a folder of the official `.bin` batches, or a folder that holds one such archive.
 *   `auto` takes `CONVOY_DATA` if that is set, else CIFAR-10 if it is in the cache or can be fetched, else `synthetic`.
 *
 * Throws a `ConvoyError` with a code `E_DATA_…` and a remedy.
 */
export async function loadDataset(source: string, options: LoadOptions = {}): Promise<Dataset> {
  const dataset = await loadWhole(source, options)
  const kept = options.holdOut === undefined ? dataset : holdOut(dataset, options.holdOut, HOLD_OUT_SEED)
  return limit(kept, options.limitTrain, options.limitTest)
}

async function loadWhole(source: string, options: LoadOptions): Promise<Dataset> {
  switch (source) {
    case 'auto':
      return loadAuto(options)
    case 'cifar10':
      return loadCifar10(options, 'CIFAR-10, the official archive')
    case 'synthetic':
      return loadSynthetic(options, 'synthetic images, drawn from a seed')
    default:
      return loadPath(source, options, source)
  }
}

async function loadAuto(options: LoadOptions): Promise<Dataset> {
  const environment = options.environment ?? process.env
  const named = environment['CONVOY_DATA']
  if (named && named !== 'auto') {
    if (named === 'cifar10' || named === 'synthetic') return loadWhole(named, options)
    return loadPath(named, options, `${path.basename(named)}, named by CONVOY_DATA`)
  }
  try {
    return await loadCifar10(options, 'CIFAR-10, the official archive')
  } catch (thrown) {
    const error = asConvoyError(thrown)
    if (error.code !== 'E_DATA_DOWNLOAD') throw error
    return loadSynthetic(
      options,
      'synthetic images: no CONVOY_DATA is set, and CIFAR-10 is neither cached nor to be fetched',
    )
  }
}

function loadSynthetic(options: LoadOptions, origin: string): Dataset {
  const { test, seed } = SYNTHETIC
  const train =
    options.limitTrain === undefined ? SYNTHETIC.train : options.limitTrain + (options.holdOut ?? 0)
  return synthetic(seed, train, options.limitTest ?? test, options.size ?? 32, origin)
}

function cacheOf(options: LoadOptions): string {
  return options.cacheDirectory ?? cacheDirectory(options.environment ?? process.env)
}

/** The converted set under `key`, or else what `make` makes, which is then kept. */
async function cached(
  options: LoadOptions,
  key: string,
  origin: string,
  make: () => Promise<Dataset>,
): Promise<Dataset> {
  const directory = cacheOf(options)
  const found = await readCached(directory, key, origin)
  if (found) return found
  const made = await make()
  try {
    await writeCached(directory, key, made)
  } catch (error) {
    options.warn?.(`the converted data set is not kept: ${(error as Error).message}`)
  }
  return made
}

async function loadCifar10(options: LoadOptions, origin: string): Promise<Dataset> {
  needCifarSize(options)
  const directory = cacheOf(options)
  const environment = options.environment ?? process.env
  const md5 = options.md5 ?? CIFAR10_MD5
  return cached(options, cacheKey('cifar10', md5), origin, async () => {
    const file = await fetchArchive({
      directory,
      url: options.url ?? environment['CONVOY_CIFAR10_URL'] ?? CIFAR10_URL,
      md5,
      timeout: options.timeout ?? NO_ANSWER,
      progress: options.progress ?? (() => {}),
      environment,
    })
    return readCifarArchive(file, origin)
  })
}

async function readCifarArchive(file: string, origin: string): Promise<Dataset> {
  const files = await readArchive(file, (name) => isBatchFile(path.posix.basename(name)))
  return fromBatches(
    new Map(files.map(({ path: name, bytes }) => [path.posix.basename(name), bytes])),
    origin,
  )
}

function needCifarSize(options: LoadOptions): void {
  if ((options.size ?? 32) === 32) return
  throw new ConvoyError(
    'E_DATA_FORMAT',
    'the .bin batches of CIFAR-10 are 32×32',
    'Leave out --image-size, or use a folder of images.',
  )
}

/** Loads what a path names. */
async function loadPath(source: string, options: LoadOptions, origin: string): Promise<Dataset> {
  const found = await stat(source).catch(() => undefined)
  if (!found) {
    throw new ConvoyError(
      'E_DATA_NOT_FOUND',
      `there is nothing at ${source}`,
      'Give --data a folder, an archive, cifar10, synthetic or auto.',
    )
  }
  if (found.isDirectory()) return loadFolder(source, options, origin)
  if (isArchive(source)) return loadArchive(source, options, origin)
  throw new ConvoyError(
    'E_DATA_FORMAT',
    `${source} is neither a folder nor a .tar, .tar.gz or .tgz`,
    'Give a folder or archive of train/<class>/* and test/<class>/* images.',
  )
}

async function loadArchive(file: string, options: LoadOptions, origin: string): Promise<Dataset> {
  const hash = createHash('sha256')
  await pipeline(createReadStream(file), hash)
  const size = options.size ?? 32
  return cached(options, cacheKey('archive', hash.digest('hex'), size), origin, async () => {
    options.progress?.(`reading ${path.basename(file)}`)
    const folders = new Set<string>()
    const files = await readArchive(
      file,
      (name) => isBatchFile(path.posix.basename(name)) || parseImagePath(name) !== undefined,
    )
    if (files.length > 0 && files.every(({ path: name }) => isBatchFile(path.posix.basename(name)))) {
      needCifarSize(options)
      return fromBatches(
        new Map(files.map(({ path: name, bytes }) => [path.posix.basename(name), bytes])),
        origin,
      )
    }
    const images = files.flatMap(({ path: name, bytes }): LabelledFile[] => {
      const parsed = parseImagePath(name)
      return parsed ? [{ ...parsed, path: name, read: () => Promise.resolve(bytes) }] : []
    })
    return fromImages(
      path.basename(file).replace(/\.(tar|tar\.gz|tgz)$/, ''),
      origin,
      images,
      folders,
      size,
      options.progress ?? (() => {}),
    )
  })
}

async function loadFolder(folder: string, options: LoadOptions, origin: string): Promise<Dataset> {
  const names = (await readdir(folder)).sort()
  const batches = names.filter(isBatchFile)
  if (batches.length > 0) {
    needCifarSize(options)
    return fromBatches(await readBatchFolder(folder, batches), origin)
  }
  if (names.includes('train') || names.includes('test')) return loadImageFolder(folder, options, origin)
  if (names.includes('cifar-10-batches-bin'))
    return loadFolder(path.join(folder, 'cifar-10-batches-bin'), options, origin)
  const archives = names.filter(isArchive)
  if (archives.length === 1) return loadArchive(path.join(folder, archives[0]), options, origin)
  throw new ConvoyError(
    'E_DATA_FORMAT',
    `${folder} holds neither train/ and test/, nor .bin batches, nor one archive`,
    'Lay it out as train/<class>/* and test/<class>/* images.',
  )
}

async function loadImageFolder(folder: string, options: LoadOptions, origin: string): Promise<Dataset> {
  const files: (LabelledFile & { stamp: string })[] = []
  const folders = new Set<string>()
  for (const split of ['train', 'test'] as const) {
    for (const entry of await directories(path.join(folder, split))) {
      folders.add(`${split}/${entry}`)
      for (const name of await readdir(path.join(folder, split, entry))) {
        const shown = `${split}/${entry}/${name}`
        if (!parseImagePath(shown)) continue
        const file = path.join(folder, shown)
        const { size, mtimeMs } = await stat(file)
        files.push({
          split,
          label: entry,
          path: shown,
          read: () => readFile(file),
          stamp: `${shown}\0${size}\0${mtimeMs}`,
        })
      }
    }
  }
  const size = options.size ?? 32
  const stamps = files.map(({ stamp }) => stamp).sort()
  return cached(options, cacheKey('folder', path.resolve(folder), size, ...folders, ...stamps), origin, () =>
    fromImages(
      path.basename(path.resolve(folder)),
      origin,
      files,
      folders,
      size,
      options.progress ?? (() => {}),
    ),
  )
}

async function directories(folder: string): Promise<string[]> {
  const entries: Dirent[] = await readdir(folder, { withFileTypes: true }).catch(() => [])
  return entries
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .sort()
}
