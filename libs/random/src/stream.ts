import { threefry2x32 } from './threefry.ts'

/** What random numbers are for. Each purpose has keys of its own, so that no two ever share a number. */
export const Purpose = {
  initialisation: 1,
  epochOrder: 2,
  augmentation: 3,
  dropout: 4,
  syntheticData: 5,
  subset: 6,
  flip: 7,
  crop: 8,
  holdOut: 9,
  patches: 10,
  wire: 11,
} as const

/**
 * Random numbers keyed by (seed, purpose, path…). Two streams with the same key give the same numbers on any
 * machine, in any order of asking: number `i` is a pure function of the key and `i`.
 */
export class RandomStream {
  readonly #key = new Uint32Array(2)
  readonly #block = new Uint32Array(2)
  #next = 0

  /**
   * @param seed The run's seed, a whole number from 0 to 2^53 - 1.
   * @param path What the numbers are for: a `Purpose`, then whatever tells this stream from its siblings
   *   (epoch, step, leaf, …), each a whole number from 0 to 2^53 - 1.
   */
  constructor(seed: number, ...path: readonly number[]) {
    this.rekey(seed, ...path)
  }

  /** Points this stream at another key, at its start; spares an allocation in a loop. */
  rekey(seed: number, ...path: readonly number[]): this {
    const key = this.#key
    key[0] = seed >>> 0
    key[1] = Math.floor(seed / 0x1_0000_0000)
    for (const part of path) {
      threefry2x32(key[0], key[1], part >>> 0, Math.floor(part / 0x1_0000_0000), key)
    }
    this.#next = 0
    return this
  }

  /** The two words of the key that this stream points at: all that its numbers depend on. */
  get key(): readonly [number, number] {
    return [this.#key[0], this.#key[1]]
  }

  /** The next 32 random bits, as a whole number from 0 to 2^32 - 1. */
  uint32(): number {
    const i = this.#next++
    if ((i & 1) === 0) threefry2x32(this.#key[0], this.#key[1], i >>> 1, 0, this.#block)
    return this.#block[i & 1]
  }

  /** The next number, uniform in [0, 1), a multiple of 2^-32. */
  uniform(): number {
    return this.uint32() / 0x1_0000_0000
  }

  /** The next whole number, uniform in [0, bound), without bias (Lemire's rejection). */
  below(bound: number): number {
    const rejected = 0x1_0000_0000 % bound
    let bits = this.uint32()
    while (bits < rejected) bits = this.uint32()
    return bits % bound
  }

  /** The next number from the standard normal distribution (Box and Muller; one of the pair is used). */
  normal(): number {
    const u = 1 - this.uniform()
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * this.uniform())
  }

  /**
   * Fills `into` with the stream's first words, whatever was drawn before. The fast way to many bits.
   */
  fill(into: Uint32Array): void {
    const k0 = this.#key[0]
    const k1 = this.#key[1]
    const pairs = into.length >>> 1
    for (let i = 0; i < pairs; i++) threefry2x32(k0, k1, i, 0, into, 2 * i)
    if (into.length & 1) {
      threefry2x32(k0, k1, pairs, 0, this.#block)
      into[into.length - 1] = this.#block[0]!
    }
    this.#next = 0
  }
}
