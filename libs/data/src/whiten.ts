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
      const key = cacheKey('zca', dataset.fingerprint)
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
 * It costs 2·n·d² + about 10·d³ operations; at 32×32×3 (d = 3,072) and 60,000 images that is an hour on one core, once.
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

  const covariance = crossProducts(train, size, progress)
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
    pixels: multiply(values, rotation, size, (share, eta) =>
      progress(`whitening ${what}: ${share} %, ETA ${eta} s`),
    ),
  })
  return makeDataset({
    ...dataset,
    train: apply(train, dataset.train, 'training images'),
    test: apply(test, dataset.test, 'test images'),
  })
}

function normalised(split: Split, size: number): Float32Array {
  const values = Float32Array.from(split.pixels, (value) => value / 255)
  for (let i = 0; i < split.count; i++)
    normaliseContrast(values.subarray(i * size, (i + 1) * size), GCN_SCALE)
  return values
}

/** Xᵀ·X in float64, by rows. */
function crossProducts(values: Float32Array, size: number, progress: (text: string) => void): Float64Array[] {
  const products = Array.from({ length: size }, () => new Float64Array(size))
  const count = values.length / size
  const started = performance.now()
  for (let n = 0; n < count; n++) {
    const image = values.subarray(n * size, (n + 1) * size)
    for (let i = 0; i < size; i++) {
      const row = products[i]
      const factor = image[i]
      for (let j = i; j < size; j++) row[j] += factor * image[j]
    }
    if (n % 64 === 63) {
      const eta = ((performance.now() - started) / 1000 / (n + 1)) * (count - n - 1)
      progress(
        `whitening: covariance, image ${n + 1} of ${count}, ETA ${eta.toFixed(0)} s; then eigenvalues, which take minutes and show nothing`,
      )
    }
  }
  for (let i = 0; i < size; i++) for (let j = 0; j < i; j++) products[i][j] = products[j][i]!
  return products
}

/** X·W, image by image; W is symmetric. */
function multiply(
  values: Float32Array,
  matrix: readonly (readonly number[])[],
  size: number,
  progress: (percent: string, eta: string) => void,
): Float32Array {
  const rows = matrix.map((row) => Float64Array.from(row))
  const into = new Float32Array(values.length)
  const count = values.length / size
  const started = performance.now()
  for (let n = 0; n < count; n++) {
    const image = values.subarray(n * size, (n + 1) * size)
    for (let i = 0; i < size; i++) {
      const row = rows[i]
      let sum = 0
      for (let j = 0; j < size; j++) sum += row[j] * image[j]
      into[n * size + i] = sum
    }
    if (n % 64 === 63) {
      const eta = ((performance.now() - started) / 1000 / (n + 1)) * (count - n - 1)
      progress(((100 * (n + 1)) / count).toFixed(0), eta.toFixed(0))
    }
  }
  return into
}
