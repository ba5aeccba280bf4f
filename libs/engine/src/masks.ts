import { outputShapes, volume, type ModelSpec } from '@convoy/model'
import { Purpose, RandomStream } from '@convoy/random'
import type { DropoutMasks } from './engine.ts'

/** What a leaf's masks are a function of. */
export interface LeafKey {
  readonly seed: number
  readonly epoch: number
  readonly step: number
  readonly leaf: number
}

/**
 * How a mask is drawn: element i takes `bits` bits of the stream's words, the lowest first, and is dropped where they are
 * below `dropped`. `bits` are as few as hold the rate exactly, at most 16.
 */
export function maskRule(rate: number): { readonly bits: number; readonly dropped: number } {
  const bits = [1, 2, 4, 8].find((bits) => Number.isInteger(rate * 2 ** bits)) ?? 16
  return { bits, dropped: Math.round(rate * 2 ** bits) }
}

/**
 * Makes the dropout masks of one leaf after another, into arrays that it reuses.
 *
 * They are drawn outside the engine, from (seed, epoch, step, leaf, layer) alone, so that every engine computes the same
 * function. A rate that 16 bits do not hold exactly is rounded to a multiple of 2^-16.
 */
export class Masks implements DropoutMasks {
  readonly keys: Uint32Array
  readonly #values: readonly Uint8Array[]
  readonly #layers: { readonly volume: number; readonly bits: number; readonly dropped: number }[]
  readonly #words: Uint32Array
  readonly #random = new RandomStream(0)
  #draw: (() => void) | undefined

  /** @param maxBatch The most samples that a leaf has. */
  constructor(model: ModelSpec, maxBatch: number) {
    const shapes = outputShapes(model)
    this.#layers = model.layers.flatMap((layer, i) => {
      if (layer.kind !== 'dropout') return []
      return [{ volume: volume(shapes[i]), ...maskRule(layer.rate) }]
    })
    this.keys = new Uint32Array(2 * this.#layers.length)
    // Whole words, of which a mask may leave a rest unused.
    this.#values = this.#layers.map((layer) =>
      new Uint8Array(4 * Math.ceil((maxBatch * layer.volume) / 4)).subarray(0, maxBatch * layer.volume),
    )
    const words = this.#layers.map((layer) => Math.ceil((maxBatch * layer.volume * layer.bits) / 32))
    this.#words = new Uint32Array(Math.max(0, ...words))
  }

  /** Makes these the masks of a leaf of `count` samples. A sample's mask does not depend on how many follow it. */
  fill({ seed, epoch, step, leaf }: LeafKey, count: number): void {
    this.#layers.forEach((_, index) =>
      this.keys.set(this.#random.rekey(seed, Purpose.dropout, epoch, step, leaf, index).key, 2 * index),
    )
    this.#draw = () => {
      this.#draw = undefined
      this.#layers.forEach((layer, index) => {
        this.#random.rekey(seed, Purpose.dropout, epoch, step, leaf, index)
        this.#drawLayer(layer, this.#values[index], count * layer.volume)
      })
    }
  }

  /** Drawn when they are first asked for; overwritten after each `fill`. */
  get values(): readonly Uint8Array[] {
    this.#draw?.()
    return this.#values
  }

  #drawLayer({ bits, dropped }: { bits: number; dropped: number }, mask: Uint8Array, size: number): void {
    const words = this.#words.subarray(0, Math.ceil((size * bits) / 32))
    this.#random.fill(words)
    if (bits === 1 && dropped === 1) return flags(words, mask, size)
    const each = 32 / bits
    const low = 2 ** bits - 1
    for (let w = 0, at = 0; w < words.length; w++) {
      // As an int32, and without a branch, which would be mispredicted half of the time: 1 unless below `dropped`.
      let word = words[w] | 0
      const end = Math.min(size, at + each)
      for (; at < end; at++, word >>>= bits) mask[at] = 1 ^ (((word & low) - dropped) >>> 31)
    }
  }
}

/** The four bytes that four bits become. */
const NIBBLES = Uint32Array.from({ length: 16 }, (_, nibble) =>
  [0, 1, 2, 3].reduce((bytes, bit) => bytes | (((nibble >> bit) & 1) << (8 * bit)), 0),
)

/** One bit a byte, which half of all masks are: what the general loop does with a rate of 0.5, four bytes at a time. */
function flags(words: Uint32Array, mask: Uint8Array, size: number): void {
  const quads = new Uint32Array(mask.buffer, mask.byteOffset, Math.ceil(size / 4))
  for (let at = 0; at < quads.length; at++) quads[at] = NIBBLES[(words[at >>> 3] >>> (4 * (at & 7))) & 15]
}
