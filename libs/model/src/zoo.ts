import { ConvoyError } from '@convoy/errors'
import { checkModel } from './layout.ts'
import type { LayerSpec, ModelSpec, Shape } from './spec.ts'

/**
 * The twelve networks of "Striving for Simplicity: The All Convolutional Net" (Springenberg, Dosovitskiy, Brox and
 * Riedmiller, 2015; arXiv 1412.6806, tables 1 and 2), for 32×32 images: models A, B and C, each as
 *
 * - `base`: max-pooling 3×3 with stride 2 after each block,
 * - `strided`: no pooling, the block's last convolution has stride 2,
 * - `conv-pool`: one more convolution before each max-pooling,
 * - `all-cnn`: max-pooling replaced by a 3×3 convolution of stride 2.
 *
 * Padding is `same` throughout and nothing follows the last 1×1 convolution but global average pooling, as in the
 * Keras listing that this project follows.
 */

/** Kernel sizes of the convolutions in each of the first two blocks. */
const blocks = {
  a: [5],
  b: [5, 1],
  c: [3, 3],
} as const

type Family = keyof typeof blocks
const variants = ['base', 'strided', 'conv-pool', 'all-cnn'] as const
type Variant = (typeof variants)[number]

/** Filters of the two blocks; the layers after them have as many as the second. */
const BLOCK_FILTERS = [96, 192] as const

/** The names that `buildModel` knows, the default first. */
export const modelNames: readonly string[] = [
  'all-cnn-c',
  ...variants
    .flatMap((variant) => (['a', 'b', 'c'] as const).map((family) => `${variant}-${family}`))
    .filter((name) => name !== 'all-cnn-c'),
]

export interface ModelOptions {
  /** [height, width, channels] of the images. */
  readonly input: Shape
  readonly classes: number
  /** Multiplies the number of filters of every layer but the last; 1 is the paper's network. */
  readonly width?: number
  /** Dropout rate on the input image; the paper uses 0.2, the default is 0. */
  readonly inputDropout?: number
  /** Dropout rate after each down-sampling layer; the paper uses 0.5. */
  readonly dropout?: number
  readonly head?: ModelSpec['head']
}

/** Builds a network by its name. Throws E_MODEL where the name is unknown or the images are too small for it. */
export function buildModel(name: string, options: ModelOptions): ModelSpec {
  const { width = 1, inputDropout = 0, dropout = 0.5 } = options
  const family = name.at(-1) as Family
  const variant = name.slice(0, -2) as Variant
  if (!modelNames.includes(name)) {
    throw new ConvoyError('E_MODEL', `no model is called ${name}`, `Use one of: ${modelNames.join(', ')}.`)
  }

  const layers: LayerSpec[] = []
  let convolutions = 0
  const convolve = (filters: number, kernel: number, stride = 1) => {
    convolutions++
    layers.push({
      kind: 'conv2d',
      name: `conv${convolutions}`,
      filters,
      kernel: [kernel, kernel],
      stride: [stride, stride],
      padding: 'same',
    })
  }
  const relu = () => layers.push({ kind: 'relu' })
  const drop = (rate: number) => {
    if (rate > 0) layers.push({ kind: 'dropout', rate })
  }

  drop(inputDropout)
  for (const blockFilters of BLOCK_FILTERS) {
    const filters = Math.max(1, Math.round(blockFilters * width))
    const kernels: readonly number[] = blocks[family]
    kernels.forEach((kernel, i) => {
      const last = i === kernels.length - 1
      convolve(filters, kernel, variant === 'strided' && last ? 2 : 1)
      relu()
    })
    if (variant === 'conv-pool') {
      convolve(filters, 3)
      relu()
    }
    if (variant === 'base' || variant === 'conv-pool') {
      layers.push({ kind: 'maxPool', size: [3, 3], stride: [2, 2], padding: 'same' })
    }
    if (variant === 'all-cnn') {
      convolve(filters, 3, 2)
      relu()
    }
    drop(dropout)
  }
  const filters = Math.max(1, Math.round(BLOCK_FILTERS[1] * width))
  convolve(filters, 3)
  relu()
  convolve(filters, 1)
  relu()
  convolve(options.classes, 1)
  layers.push({ kind: 'globalAveragePool' })

  return checkModel({
    name: width === 1 ? name : `${name}×${width}`,
    input: [...options.input],
    layers,
    head: options.head ?? 'softmax',
    classes: options.classes,
  })
}
