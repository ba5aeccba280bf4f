import { expandBf16, roundToBf16 } from './bf16.ts'
import { expandInt8, int8Bytes, Int8Rounding } from './int8.ts'

/** How a node's sum travels. */
export type Encoding = 'float32' | 'bf16' | 'int8'

/** Which node of which step of a run a sum is of: what `int8` is rounded by. */
export interface NodeKey {
  readonly seed: number
  readonly step: number
  readonly lo: number
  readonly hi: number
}

/** Bytes of so many numbers. */
export function encodedBytes(encoding: Encoding, count: number): number {
  if (encoding === 'int8') return int8Bytes(count)
  return (encoding === 'bf16' ? 2 : 4) * count
}

/** The float32 numbers that were encoded in bytes, which are as many as `encodedBytes` says and start at a place that 4 divides. */
export function decode(encoding: Encoding, bytes: Uint8Array, into: Float32Array): void {
  const { buffer, byteOffset } = bytes
  if (encoding === 'int8') expandInt8(bytes, into)
  else if (encoding === 'bf16') expandBf16(new Uint16Array(buffer, byteOffset, into.length), into)
  else into.set(new Float32Array(buffer, byteOffset, into.length))
}

/** Encodes sums; has what that takes in arrays that are used again. */
export class Encoder {
  readonly #size: number
  #int8: Int8Rounding | undefined
  #bytes: Uint8Array | undefined

  /** @param size How many numbers a sum has: all of them in `int8`, some or all otherwise. */
  constructor(size: number) {
    this.#size = size
  }

  /** Writes float32 numbers into bytes, of which there are `encodedBytes`. In `int8` they are a whole sum. */
  encode(encoding: Encoding, values: Float32Array, { seed, step, lo, hi }: NodeKey, into: Uint8Array): void {
    const { buffer, byteOffset } = into
    if (encoding === 'bf16') roundToBf16(values, new Uint16Array(buffer, byteOffset, values.length))
    else if (encoding === 'float32') new Float32Array(buffer, byteOffset, values.length).set(values)
    else (this.#int8 ??= new Int8Rounding(this.#size)).round(values, [seed, step, lo, hi], into)
  }

  /** Rounds numbers to those that arrive where they are encoded and decoded. */
  round(encoding: Encoding, values: Float32Array, node: NodeKey): void {
    this.#bytes ??= new Uint8Array(encodedBytes('float32', this.#size))
    const bytes = this.#bytes.subarray(0, encodedBytes(encoding, values.length))
    this.encode(encoding, values, node, bytes)
    decode(encoding, bytes, values)
  }
}
