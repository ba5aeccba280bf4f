import { Arena, type Slot } from '@convoy/arena'
import { cacheDirectory } from '@convoy/download'
import { cacheKey, readCached, writeCached } from './cache.ts'
import { makeDataset, type Dataset, type Split } from './dataset.ts'
import { GCN_SCALE, normaliseContrast, type PreprocessingSpec } from './preprocessing.ts'
import { channelNormalisation } from './statistics.ts'

/** What a config asks for. */
export type PreprocessingName = 'channels' | 'gcn' | 'zca'

export interface PrepareOptions {
  readonly cacheDirectory?: string | undefined
  readonly progress?: (text: string) => void
}

/** A data set, and what is still to be done to each of its images. */
export interface Prepared {
  readonly dataset: Dataset
  readonly preprocessing: PreprocessingSpec
}

/**
 * Makes the preprocessing that was asked for. Normalisation by channel and by image is left to the workers, image by
 * image; ZCA needs the whole set and is done here, once, and kept in the cache.
 */
export async function prepare(
  dataset: Dataset,
  name: PreprocessingName,
  options: PrepareOptions,
): Promise<Prepared> {
  switch (name) {
    case 'channels':
      return { dataset, preprocessing: channelNormalisation(dataset) }
    case 'gcn':
      return { dataset, preprocessing: { kind: 'gcn', scale: GCN_SCALE } }
    case 'zca': {
      const directory = options.cacheDirectory ?? cacheDirectory(process.env)
      const key = cacheKey('zca-2', dataset.fingerprint)
      let whitened = await readCached(directory, key, dataset.origin)
      if (!whitened) {
        whitened = await whiten(dataset, ZCA_BIAS, options.progress ?? (() => {}))
        await writeCached(directory, key, whitened).catch(() => {})
      }
      return { dataset: whitened, preprocessing: { kind: 'none' } }
    }
  }
}

/** Added to each eigenvalue before its root is taken, so that noise is not blown up. */
const ZCA_BIAS = 0.1

/**
 * Global contrast normalisation, then ZCA whitening with the statistics of the training images:
 * x ← (x - m)·E·(Λ + bias)^(-1/2)·Eᵀ, where EΛEᵀ is their covariance (Bell and Sejnowski 1997; Krizhevsky 2009).
 *
 * It costs 3·n·d² operations and about 10·d³, which the eigenvalues take; at 32×32×3 (d = 3,072) these are most of the time.
 */
export async function whiten(
  dataset: Dataset,
  bias: number,
  progress: (text: string) => void,
): Promise<Dataset> {
  const { EigenvalueDecomposition, Matrix } = await import('ml-matrix')
  const size = dataset.shape[0] * dataset.shape[1] * dataset.shape[2]
  const train = normalised(dataset.train, size)
  const test = normalised(dataset.test, size)
  const mean = new Float64Array(size)
  for (let i = 0; i < train.length; i++) mean[i % size] += train[i] / dataset.train.count
  for (const values of [train, test]) for (let i = 0; i < values.length; i++) values[i] -= mean[i % size]

  const products = new Products(size)
  const covariance = products.ofImages(train, (done) =>
    progress(`whitening: covariance, ${done}; then eigenvalues, which take minutes and show nothing`),
  )
  for (const row of covariance) for (let j = 0; j < size; j++) row[j] /= dataset.train.count
  progress('whitening: eigenvalues (the longest part; it shows no progress)')
  const { eigenvectorMatrix, realEigenvalues } = new EigenvalueDecomposition(new Matrix(covariance), {
    assumeSymmetric: true,
  })
  const scaled = eigenvectorMatrix.clone()
  realEigenvalues.forEach((value, k) => scaled.mulColumn(k, 1 / Math.sqrt(Math.max(value, 0) + bias)))
  const rotation = scaled.mmul(eigenvectorMatrix.transpose()).to2DArray()

  const apply = (values: Float32Array, split: Split, what: string): Split => ({
    ...split,
    pixels: products.withMatrix(values, rotation, (done) => progress(`whitening: ${what}, ${done}`)),
  })
  return makeDataset({
    ...dataset,
    train: apply(train, dataset.train, 'training set'),
    test: apply(test, dataset.test, 'test set'),
  })
}

function normalised(split: Split, size: number): Float32Array {
  const values = Float32Array.from(split.pixels, (value) => value / 255)
  for (let i = 0; i < split.count; i++)
    normaliseContrast(values.subarray(i * size, (i + 1) * size), GCN_SCALE)
  return values
}

type Told = (done: string) => void

/** So many images are worked on at a time. */
const BLOCK = 960

/** Products of images and a symmetric matrix, in float32 on WebAssembly: as fast as the central update, a hundred times what plain JavaScript does. */
class Products {
  readonly #size: number
  /** As many numbers as a row takes: rows that lie a multiple of 4 KiB apart would share one place of the cache. */
  readonly #columns: number
  readonly #arena: Arena
  readonly #images: Slot
  readonly #square: Slot

  constructor(size: number) {
    this.#size = size
    this.#columns = 8 * Math.ceil(size / 8) + 8
    this.#arena = new Arena(BLOCK * this.#columns)
    this.#square = this.#arena.take(this.#columns ** 2)
    this.#images = this.#arena.take()
    this.#images.values.fill(0)
    this.#square.values.fill(0)
  }

  /** Xᵀ·X by rows: in float32 within a block of images, in float64 over the blocks. */
  ofImages(values: Float32Array, progress: Told): Float64Array[] {
    const [size, columns] = [this.#size, this.#columns]
    const products = Array.from({ length: size }, () => new Float64Array(size))
    this.#blocks(values, progress, (rows) => {
      this.#arena.symmetricProduct(this.#images, this.#images, { first: 0, rows, columns }, this.#square)
      const square = this.#square.values
      for (let i = 0; i < size; i++) {
        for (let j = 0; j < size; j++) products[i][j] += square[i * columns + j]
      }
    })
    return products
  }

  /** X·W, image by image. */
  withMatrix(values: Float32Array, matrix: readonly (readonly number[])[], progress: Told): Float32Array {
    const [size, columns] = [this.#size, this.#columns]
    matrix.forEach((row, i) => this.#square.values.set(row, i * columns))
    const into = new Float32Array(values.length)
    const to = this.#arena.take()
    this.#blocks(values, progress, (rows, first) => {
      this.#arena.product(this.#images, this.#square, to, { first: 0, rows, columns })
      for (let row = 0; row < rows; row++)
        into.set(to.values.subarray(row * columns, row * columns + size), (first + row) * size)
    })
    this.#arena.give(to)
    return into
  }

  #blocks(values: Float32Array, progress: Told, work: (rows: number, first: number) => void): void {
    const [size, columns] = [this.#size, this.#columns]
    const count = values.length / size
    const started = performance.now()
    for (let first = 0; first < count; first += BLOCK) {
      const rows = Math.min(BLOCK, count - first)
      for (let row = 0; row < rows; row++) {
        const at = (first + row) * size
        this.#images.values.set(values.subarray(at, at + size), row * columns)
      }
      work(rows, first)
      const done = first + rows
      const eta = ((performance.now() - started) / 1000 / done) * (count - done)
      progress(`image ${done} of ${count}, ETA ${eta.toFixed(0)} s`)
    }
  }
}
