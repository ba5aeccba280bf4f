import { Purpose, RandomStream } from '@convoy/random'
import { LeafImages } from './leaf.ts'
import { shuffle } from './order.ts'
import type { Prepared } from './whiten.ts'

export interface PatchOptions {
  /** Height and width of a patch: those of the first layer's kernels. */
  readonly kernel: readonly [height: number, width: number]
  /** Height and width that the images are shrunk to: those that the run begins with. */
  readonly size: number
  /** Draws which images are measured. */
  readonly seed: number
  /** How many of them; 5,000 by default. */
  readonly images?: number
}

export interface PatchStatistics {
  /** Of the patches' covariance, from the largest on; none below 0. */
  readonly eigenvalues: Float64Array
  /** One for each eigenvalue, [kernel height, kernel width, channels], of length 1; its largest number is positive. */
  readonly eigenvectors: readonly Float64Array[]
}

const IMAGES = 5_000

/**
 * Eigenvectors of the covariance of all patches of training images, as the network sees them: divided by the roots of their
 * eigenvalues, and each with its negative, they are a first layer whose outputs are uncorrelated and of one variance (Page,
 * "How to Train Your ResNet 8: Bag of Tricks", 2019).
 *
 * Everything is computed in float64 in one order, of +, −, ×, ÷ and sqrt alone, in ml-matrix (tred2, tql2) too: the same
 * bits on every machine, with the same version of ml-matrix.
 */
export async function patchStatistics(prepared: Prepared, options: PatchOptions): Promise<PatchStatistics> {
  const { EigenvalueDecomposition, Matrix } = await import('ml-matrix')
  const { eigenvectorMatrix, realEigenvalues } = new EigenvalueDecomposition(
    new Matrix(patchCovariance(prepared, options)),
    { assumeSymmetric: true },
  )
  // From the smallest on there.
  return {
    eigenvalues: Float64Array.from(realEigenvalues.toReversed(), (value) => Math.max(0, value)),
    eigenvectors: realEigenvalues
      .map((_, k) => withSign(Float64Array.from(eigenvectorMatrix.getColumn(k))))
      .toReversed(),
  }
}

/** Of a vector and its negative, that whose largest number is positive. */
function withSign(vector: Float64Array): Float64Array {
  const largest = vector.reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a))
  return largest < 0 ? vector.map((value) => -value) : vector
}

/** The covariance of the patches, by rows. */
export function patchCovariance(
  { dataset, preprocessing }: Prepared,
  { kernel, size, seed, images = IMAGES }: PatchOptions,
): Float64Array[] {
  const { train, shape } = dataset
  const channels = shape[2]
  const order = new Uint32Array(train.count).map((_, i) => i)
  shuffle(order, new RandomStream(seed, Purpose.patches))
  const volume = train.pixels.length / train.count
  const leaf = new LeafImages(shape, preprocessing, { flip: false, shift: 0 }, 1, size)
  const [height, width] = size === shape[0] ? shape : [size, size]
  const length = kernel[0] * kernel[1] * channels
  const patch = new Float64Array(length)
  const sums = new Float64Array(length)
  const products = Array.from({ length }, () => new Float64Array(length))
  let count = 0
  for (const sample of order.subarray(0, images)) {
    leaf.clear()
    leaf.add(train.pixels.subarray(sample * volume, (sample + 1) * volume), 0, undefined)
    const image = leaf.images
    for (let y = 0; y + kernel[0] <= height; y++) {
      for (let x = 0; x + kernel[1] <= width; x++, count++) {
        for (let row = 0, at = 0; row < kernel[0]; row++) {
          const from = ((y + row) * width + x) * channels
          for (let i = 0; i < kernel[1] * channels; i++, at++) patch[at] = image[from + i]
        }
        for (let i = 0; i < length; i++) {
          const value = patch[i]
          const into = products[i]
          sums[i] += value
          for (let j = 0; j <= i; j++) into[j] += value * patch[j]
        }
      }
    }
  }
  for (let i = 0; i < length; i++) {
    for (let j = 0; j <= i; j++)
      products[i][j] = products[j][i] = products[i][j] / count - (sums[i] / count) * (sums[j] / count)
  }
  return products
}
