import type { AugmentationSpec, SampleKey, Variation } from './augmentation.ts'
import { ImageFiller } from './fill.ts'
import type { PreprocessingSpec } from './preprocessing.ts'

/**
 * The images and labels of one leaf after another, in arrays that it reuses. The network's input is made when it is first
 * asked for: an engine on a GPU makes it there, of the stored bytes.
 */
export class LeafImages {
  count = 0
  /** [count] */
  readonly labels: Int32Array
  readonly #filler: ImageFiller
  readonly #size: number
  readonly #images: Float32Array
  readonly #pixels: (Uint8Array | Float32Array)[] = []
  /** [count, 3]: mirrored, down, right. */
  readonly #variations: Int32Array
  readonly #variation: Variation = { flip: false, down: 0, right: 0 }
  /** How many of the images are made. */
  #made = 0

  /** @param most Images that a leaf has at most. */
  constructor(
    shape: readonly [height: number, width: number, channels: number],
    preprocessing: PreprocessingSpec,
    augmentation: AugmentationSpec,
    most: number,
  ) {
    this.#filler = new ImageFiller(shape, preprocessing, augmentation)
    this.#size = shape[0] * shape[1] * shape[2]
    this.#images = new Float32Array(most * this.#size)
    this.#variations = new Int32Array(3 * most)
    this.labels = new Int32Array(most)
  }

  clear(): void {
    this.count = this.#made = this.#pixels.length = 0
  }

  /**
   * @param pixels One image [height, width, channels], which stays as it is until `clear`.
   * @param key Whose variation to use; undefined for none (tests and predictions).
   */
  add(pixels: Uint8Array | Float32Array, label: number, key: SampleKey | undefined): void {
    this.#filler.vary(key, this.#variation)
    const at = 3 * this.count
    this.#variations[at] = this.#variation.flip ? 1 : 0
    this.#variations[at + 1] = this.#variation.down
    this.#variations[at + 2] = this.#variation.right
    this.labels[this.count++] = label
    this.#pixels.push(pixels)
  }

  /** float32 [count, height, width, channels]. */
  get images(): Float32Array {
    const variation = this.#variation
    for (; this.#made < this.count; this.#made++) {
      const at = 3 * this.#made
      variation.flip = this.#variations[at] === 1
      variation.down = this.#variations[at + 1]
      variation.right = this.#variations[at + 2]
      const into = this.#images.subarray(this.#made * this.#size, (this.#made + 1) * this.#size)
      this.#filler.place(this.#pixels[this.#made], variation, into)
    }
    return this.#images
  }

  /** What `images` is made of, where a table tells what each byte becomes. */
  get stored(): { pixels: readonly Uint8Array[]; table: Float32Array; variations: Int32Array } | undefined {
    const { table } = this.#filler
    const pixels = this.#pixels
    if (!table || !pixels.every((one) => one instanceof Uint8Array)) return undefined
    return { pixels, table, variations: this.#variations }
  }
}
