import { Purpose, RandomStream } from '@convoy/random'
import type { SampleKey } from './augmentation.ts'

type Shape = readonly [height: number, width: number, channels: number]

/** Makes a smaller image of bytes of one of bytes; nothing is allocated. */
export interface Resizer {
  /**
   * @param pixels [height, width, channels] of the larger shape.
   * @param key Whose image it is; undefined where it is not for training.
   * @param into Receives [height, width, channels] of the smaller.
   */
  resize(pixels: Uint8Array, key: SampleKey | undefined, into: Uint8Array): void
}

/**
 * One axis of an area filter from `from` to `to` pixels. Lengths are counted in a unit that a pixel of either image is a
 * whole number of: `wide` a pixel of the smaller one, `narrow` one of the larger.
 */
function axis(from: number, to: number) {
  const unit = divisor(from, to)
  const wide = from / unit
  const narrow = to / unit
  /** Pixels that one of the smaller image is made of, at most. */
  const taps = Math.min(from, Math.ceil((wide - 1) / narrow) + 1)
  /** The first of them. */
  const starts = new Int32Array(to)
  /** [to, taps]: how much of each lies in it. */
  const weights = new Int32Array(to * taps)
  for (let i = 0; i < to; i++) {
    starts[i] = Math.min(Math.floor((i * wide) / narrow), from - taps)
    for (let t = 0; t < taps; t++) {
      const at = (starts[i] + t) * narrow
      weights[i * taps + t] = Math.max(0, Math.min(at + narrow, (i + 1) * wide) - Math.max(at, i * wide))
    }
  }
  return { wide, taps, starts, weights }
}

function divisor(a: number, b: number): number {
  return b === 0 ? a : divisor(b, a % b)
}

/**
 * Shrinks images by an area filter: a pixel becomes the mean of the area that it covers, which may hold parts of pixels.
 * Everything is whole numbers but the last division, which is rounded half up: the same bits everywhere.
 */
export class Shrinker implements Resizer {
  readonly #channels: number
  readonly #rows: ReturnType<typeof axis>
  readonly #columns: ReturnType<typeof axis>
  /** Rows of the larger image that became one. */
  readonly #row: Int32Array

  constructor([height, width, channels]: Shape, [toHeight, toWidth]: Shape) {
    this.#channels = channels
    this.#rows = axis(height, toHeight)
    this.#columns = axis(width, toWidth)
    this.#row = new Int32Array(width * channels)
  }

  resize(pixels: Uint8Array, _key: SampleKey | undefined, into: Uint8Array): void {
    const { starts, weights, taps, wide } = this.#rows
    const row = this.#row
    const area = wide * this.#columns.wide
    for (let y = 0; y < starts.length; y++) {
      row.fill(0)
      for (let t = 0, from = starts[y] * row.length; t < taps; t++, from += row.length) {
        const weight = weights[y * taps + t]
        if (weight > 0) for (let i = 0; i < row.length; i++) row[i] += weight * pixels[from + i]
      }
      this.#shrinkRow(area, into, y * this.#columns.starts.length * this.#channels)
    }
  }

  #shrinkRow(area: number, into: Uint8Array, at: number): void {
    const { starts, weights, taps } = this.#columns
    const row = this.#row
    const channels = this.#channels
    const half = area >> 1
    const share = 1 / area
    for (let x = 0; x < starts.length; x++) {
      const start = starts[x] * channels
      for (let c = 0; c < channels; c++, at++) {
        let sum = half
        for (let t = 0; t < taps; t++) sum += weights[x * taps + t] * row[start + t * channels + c]
        // The half keeps the product off whole numbers by more than it is rounded: this is the floor of sum / area.
        into[at] = (sum + 0.5) * share
      }
    }
  }
}

/** Cuts a window out of images, at a place that is drawn for each key; the one in the middle where there is none. */
export class Cropper implements Resizer {
  readonly #from: Shape
  readonly #to: Shape
  readonly #random = new RandomStream(0)

  constructor(from: Shape, to: Shape) {
    this.#from = from
    this.#to = to
  }

  resize(pixels: Uint8Array, key: SampleKey | undefined, into: Uint8Array): void {
    const [fullHeight, fullWidth, channels] = this.#from
    const [height, width] = this.#to
    let top = (fullHeight - height) >> 1
    let left = (fullWidth - width) >> 1
    if (key) {
      this.#random.rekey(key.seed, Purpose.crop, key.epoch, key.sample)
      top = this.#random.below(fullHeight - height + 1)
      left = this.#random.below(fullWidth - width + 1)
    }
    const length = width * channels
    for (let y = 0, at = 0; y < height; y++) {
      const from = ((top + y) * fullWidth + left) * channels
      for (let i = 0; i < length; i++, at++) into[at] = pixels[from + i]
    }
  }
}
