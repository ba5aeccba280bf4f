import { scaleAugmentation, unvaried, type AugmentationSpec, type SampleKey } from './augmentation.ts'
import { ImageFiller } from './fill.ts'
import { scalePreprocessing, type PreprocessingSpec } from './preprocessing.ts'
import { Cropper, Shrinker, type Resizer } from './resize.ts'

/**
 * The images and labels of one leaf after another, in arrays that it reuses. The network's input is made when it is first
 * asked for: an engine on a GPU makes it there, of the stored bytes.
 */
export class LeafImages {
  count = 0
  /** [count] */
  readonly labels: Int32Array
  readonly #filler: ImageFiller
  /** Numbers of one image. */
  readonly #volume: number
  readonly #images: Float32Array
  readonly #pixels: (Uint8Array | Float32Array)[] = []
  /** Makes the images smaller, each in an array of its own; none where they stay as they are. */
  readonly #resizer: Resizer | undefined
  readonly #resized: readonly Uint8Array[]
  readonly #drawn: ReturnType<typeof unvaried>[]
  /** [count, 3]: mirrored, down, right. */
  readonly #variations: Int32Array
  readonly #cutout: boolean
  /** How many of the images are made. */
  #made = 0

  /**
   * @param shape Of the images that are added.
   * @param augmentation Of images of that shape, as the preprocessing; where `size` is smaller, both are scaled with it.
   * @param most Images that a leaf has at most.
   * @param size Height and width of the network's input, where it is smaller than the images, which are square then.
   */
  constructor(
    shape: readonly [height: number, width: number, channels: number],
    preprocessing: PreprocessingSpec,
    augmentation: AugmentationSpec,
    most: number,
    size = shape[0],
  ) {
    const full = shape[0]
    const input = size === full ? shape : ([size, size, shape[2]] as const)
    const scaled = scaleAugmentation(augmentation, size, full)
    this.#filler = new ImageFiller(input, scalePreprocessing(preprocessing, size, full), scaled)
    this.#cutout = (scaled.cutout ?? 0) > 0
    this.#volume = input[0] * input[1] * input[2]
    this.#images = new Float32Array(most * this.#volume)
    this.#variations = new Int32Array(3 * most)
    this.#drawn = Array.from({ length: most }, unvaried)
    this.labels = new Int32Array(most)
    if (size === full) this.#resized = []
    else {
      this.#resizer = augmentation.resize === 'crop' ? new Cropper(shape, input) : new Shrinker(shape, input)
      this.#resized = Array.from({ length: most }, () => new Uint8Array(this.#volume))
    }
  }

  clear(): void {
    this.count = this.#made = this.#pixels.length = 0
  }

  /**
   * @param pixels One image of the shape that was told, which stays as it is until `clear`: bytes where it is resized.
   * @param key Whose variation to use; undefined for none (tests and predictions).
   */
  add(pixels: Uint8Array | Float32Array, label: number, key: SampleKey | undefined): void {
    const drawn = this.#drawn[this.count]
    this.#filler.vary(key, drawn)
    const at = 3 * this.count
    this.#variations[at] = drawn.flip ? 1 : 0
    this.#variations[at + 1] = drawn.down
    this.#variations[at + 2] = drawn.right
    this.#pixels.push(this.#resizer ? this.#resize(this.#resizer, pixels, key) : pixels)
    this.labels[this.count++] = label
  }

  #resize(resizer: Resizer, pixels: Uint8Array | Float32Array, key: SampleKey | undefined): Uint8Array {
    if (!(pixels instanceof Uint8Array)) throw new Error('only images of bytes are made smaller')
    const into = this.#resized[this.count]
    resizer.resize(pixels, key, into)
    return into
  }

  /** float32 [count, height, width, channels] of the network's input. */
  get images(): Float32Array {
    for (; this.#made < this.count; this.#made++) {
      const into = this.#images.subarray(this.#made * this.#volume, (this.#made + 1) * this.#volume)
      this.#filler.place(this.#pixels[this.#made], this.#drawn[this.#made], into)
    }
    return this.#images
  }

  /**
   * What `images` is made of, where a table tells what each byte becomes. With a cutout there is none: it is the mean, which
   * no byte is.
   */
  get stored(): { pixels: readonly Uint8Array[]; table: Float32Array; variations: Int32Array } | undefined {
    const { table } = this.#filler
    const pixels = this.#pixels
    if (this.#cutout || !table || !pixels.every((one) => one instanceof Uint8Array)) return undefined
    return { pixels, table, variations: this.#variations }
  }
}
