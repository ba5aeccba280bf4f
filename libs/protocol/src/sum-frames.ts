import { encodedBytes, Encoder } from '@convoy/reduction'
import { RESERVED, reserveFrame, sealFrame } from './frame.ts'
import type { CoordinatorMessage, MessageOf } from './messages.ts'

/** A node's sum, and how long it took, in seconds. */
interface Summed {
  readonly values: Float32Array
  readonly loss: number
  readonly correct: number
  readonly seconds: number
}

/** Makes the answers to requests for gradients, in frames that are used again. */
export class SumFrames {
  readonly #size: number
  readonly #seed: number
  readonly #encoder: Encoder
  readonly #free: ArrayBuffer[] = []

  /**
   * @param size Numbers of a gradient.
   * @param seed Of the run; `int8` is rounded by it.
   */
  constructor(size: number, seed: number) {
    this.#size = size
    this.#seed = seed
    this.#encoder = new Encoder(size)
  }

  /** The answer to a request, in the encoding that it asks for: the first `length` bytes of `frame`. */
  seal(
    { id, step, lo, hi, count, encoding }: MessageOf<CoordinatorMessage, 'work'>,
    { values, loss, correct, seconds }: Summed,
  ): { frame: ArrayBuffer; length: number } {
    const payloadBytes = encodedBytes(encoding, this.#size)
    const frame = this.#free.pop() ?? reserveFrame(encodedBytes('float32', this.#size))
    const key = { seed: this.#seed, step, lo, hi }
    this.#encoder.encode(encoding, values, key, new Uint8Array(frame, RESERVED, payloadBytes))
    const header = { kind: 'gradient', id, step, lo, hi, count, loss, correct, seconds }
    return { frame, length: sealFrame(frame, header, payloadBytes).byteLength }
  }

  /** Takes a frame back that was sent. */
  reuse(frame: ArrayBuffer): void {
    this.#free.push(frame)
  }
}
