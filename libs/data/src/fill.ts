import { RandomStream } from '@convoy/random'
import {
  reflect,
  unvaried,
  vary,
  type AugmentationSpec,
  type SampleKey,
  type Variation,
} from './augmentation.ts'
import { normaliseContrast, type PreprocessingSpec } from './preprocessing.ts'

const NONE: Readonly<Variation> = unvaried()

/**
 * Turns stored images into the network's input: normalised and, for training, varied. One pass over each image, nothing
 * allocated.
 */
export class ImageFiller {
  readonly #shape: readonly [height: number, width: number, channels: number]
  readonly #height: number
  readonly #width: number
  readonly #channels: number
  readonly #preprocessing: PreprocessingSpec
  readonly #augmentation: AugmentationSpec
  /** What each byte becomes, by channel: [channels, 256]; undefined where that depends on more than the byte. */
  readonly table: Float32Array | undefined
  /** Where the pixels of one row come from. */
  readonly #columns: Int32Array
  readonly #random = new RandomStream(0)
  readonly #variation = unvaried()

  constructor(
    shape: readonly [height: number, width: number, channels: number],
    preprocessing: PreprocessingSpec,
    augmentation: AugmentationSpec,
  ) {
    this.#shape = shape
    ;[this.#height, this.#width, this.#channels] = shape
    this.#preprocessing = preprocessing
    this.#augmentation = augmentation
    this.#columns = new Int32Array(this.#width)
    if (preprocessing.kind === 'channels') {
      this.table = new Float32Array(256 * this.#channels)
      for (let i = 0; i < this.table.length; i++) {
        const channel = i >> 8
        const { mean, deviation } = preprocessing
        this.table[i] = ((i & 255) / 255 - mean[channel]) / deviation[channel]
      }
    }
  }

  /**
   * @param pixels One image [height, width, channels]: bytes, or float32 that need no table.
   * @param key Whose variation to use; undefined for none (tests and predictions).
   * @param into Receives float32 [height, width, channels].
   */
  fill(pixels: Uint8Array | Float32Array, key: SampleKey | undefined, into: Float32Array): void {
    this.vary(key, this.#variation)
    this.place(pixels, this.#variation, into)
  }

  /** Draws an image's variation; none where there is no key. */
  vary(key: SampleKey | undefined, into: Variation): void {
    if (key) vary(this.#augmentation, this.#shape, key, this.#random, into)
    else Object.assign(into, NONE)
  }

  /** As `fill`, with a variation that was drawn. */
  place(pixels: Uint8Array | Float32Array, variation: Variation, into: Float32Array): void {
    const columns = this.#columns
    const width = this.#width
    for (let x = 0; x < width; x++) {
      const from = reflect(x - variation.right, width)
      columns[x] = (variation.flip ? width - 1 - from : from) * this.#channels
    }
    if (this.table && pixels instanceof Uint8Array) this.#look(pixels, this.table, variation.down, into)
    else this.#copy(pixels, variation.down, into)
    if (this.#preprocessing.kind === 'gcn') normaliseContrast(into, this.#preprocessing.scale)
    if (variation.cutout > 0) this.#cut(variation, into)
  }

  /** Sets the square that is cut out to 0, as far as it lies inside. */
  #cut({ cutout, top, left }: Variation, into: Float32Array): void {
    const from = Math.max(0, left)
    const to = Math.min(this.#width, left + cutout)
    const bottom = Math.min(this.#height, top + cutout)
    for (let y = Math.max(0, top); y < bottom; y++) {
      const row = y * this.#width
      into.fill(0, (row + from) * this.#channels, (row + to) * this.#channels)
    }
  }

  #look(pixels: Uint8Array, table: Float32Array, down: number, into: Float32Array): void {
    const columns = this.#columns
    const height = this.#height
    const channels = this.#channels
    const row = this.#width * channels
    for (let y = 0, at = 0; y < height; y++) {
      const start = reflect(y - down, height) * row
      for (let x = 0; x < columns.length; x++) {
        const from = start + columns[x]
        for (let c = 0; c < channels; c++, at++) into[at] = table[(c << 8) + pixels[from + c]]!
      }
    }
  }

  #copy(pixels: Uint8Array | Float32Array, down: number, into: Float32Array): void {
    const columns = this.#columns
    const height = this.#height
    const channels = this.#channels
    const row = this.#width * channels
    for (let y = 0, at = 0; y < height; y++) {
      const start = reflect(y - down, height) * row
      for (let x = 0; x < columns.length; x++) {
        const from = start + columns[x]
        for (let c = 0; c < channels; c++, at++) into[at] = pixels[from + c]!
      }
    }
  }
}
