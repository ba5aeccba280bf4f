import { Purpose, RandomStream } from '@convoy/random'

/**
 * Eight-bit numbers with a float32 scale for each block of them: first all scales, then all numbers. A number of a block whose largest
 * absolute value is m stands for number·m / 127.
 */

/** Numbers that share a scale. */
const BLOCK = 128

/** Bytes of so many numbers. */
export function int8Bytes(count: number): number {
  return 4 * Math.ceil(count / BLOCK) + count
}

function parts(bytes: Uint8Array, count: number): { scales: Float32Array; numbers: Int8Array } {
  const { buffer, byteOffset } = bytes
  const scales = new Float32Array(buffer, byteOffset, Math.ceil(count / BLOCK))
  return { scales, numbers: new Int8Array(buffer, byteOffset + scales.byteLength, count) }
}

/** The float32 numbers that these bytes stand for; NaN in a block that was not finite. */
export function expandInt8(bytes: Uint8Array, into: Float32Array): Float32Array {
  const { scales, numbers } = parts(bytes, into.length)
  for (let i = 0; i < into.length; i++) into[i] = numbers[i] * scales[Math.floor(i / BLOCK)]
  return into
}

/**
 * Rounds to eight bits by chance, up or down, so that the mean is the number itself (Alistarh et al., "QSGD: Communication-Efficient SGD via
 * Gradient Quantization and Encoding", 2017; here to 2^-17 of a unit). Chance is a pure function of the key, so whoever rounds gets the same bits.
 */
export class Int8Rounding {
  readonly #random = new RandomStream(0)
  /** 16 random bits a number. */
  readonly #words: Uint32Array
  readonly #halves: Uint16Array

  /** @param size How many numbers are rounded at a time. */
  constructor(size: number) {
    this.#words = new Uint32Array(Math.ceil(size / 2))
    this.#halves = new Uint16Array(this.#words.buffer)
  }

  /**
   * @param values float32; a block that holds NaN or Inf becomes all NaN.
   * @param key Seed of the run, and what tells these numbers from others.
   * @param into `int8Bytes` bytes, at a place that 4 divides.
   */
  round(values: Float32Array, [seed, ...path]: readonly [number, ...number[]], into: Uint8Array): void {
    this.#random.rekey(seed, Purpose.wire, ...path).fill(this.#words)
    const halves = this.#halves
    const { scales, numbers } = parts(into, values.length)
    const bits = new Uint32Array(values.buffer, values.byteOffset, values.length)
    const float = new Float32Array(1)
    const pattern = new Uint32Array(float.buffer)
    for (let b = 0; b < scales.length; b++) {
      const end = Math.min(values.length, (b + 1) * BLOCK)
      // As whole numbers the patterns without sign have the order of what they stand for, with Inf and NaN above all.
      let most = 0
      for (let i = b * BLOCK; i < end; i++) most = Math.max(most, bits[i] & 0x7fff_ffff)
      pattern[0] = most
      scales[b] = float[0] / 127
      const units = 127 / float[0]
      // Of a block of zeros, 0·Inf is NaN, which as an int8 is 0.
      for (let i = b * BLOCK; i < end; i++)
        numbers[i] = Math.floor(values[i] * units + (halves[i] + 0.5) / 0x1_0000)
    }
  }
}
