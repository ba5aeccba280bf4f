import { encodedBytes, Encoder, stretchOf } from '@convoy/reduction'
import { RESERVED, reservedBytes, sealFrame } from './frame.ts'
import type { CoordinatorMessage, MessageOf } from './messages.ts'

/** A node's sum, and how long it took, in seconds. */
interface Summed {
  readonly values: Float32Array
  readonly loss: number
  readonly correct: number
  readonly seconds: number
}

type Work = MessageOf<CoordinatorMessage, 'work'>
type Answer = { frame: ArrayBuffer; length: number }

/** Makes the answers to requests for gradients, in frames that are used again. */
export class SumFrames {
  readonly #size: number
  readonly #seed: number
  readonly #encoder: Encoder
  /** By what they are for: the beginning and the end of a gradient differ in length. */
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

  /**
   * The answer to a request, in the encoding that it asks for: the first `length` bytes of `frame`.
   *
   * @param head Whether the numbers from the request's cut on went ahead.
   */
  seal(work: Work, { values, loss, correct, seconds }: Summed, head = false): Answer {
    const { id, step, lo, hi, count } = work
    const header = { kind: 'gradient', id, step, lo, hi, count, loss, correct, seconds }
    const [first, end] = stretchOf(head ? 'head' : 'whole', work.cut ?? 0, this.#size)
    return this.#fill(work, values.subarray(first, end), head ? { ...header, head } : header)
  }

  /** What goes ahead of it: the numbers from the request's cut on. */
  sealTail(work: Work, values: Float32Array): Answer {
    const { id, step, lo, hi } = work
    return this.#fill(work, values, { kind: 'tail', id, step, lo, hi })
  }

  #fill({ step, lo, hi, encoding }: Work, values: Float32Array, header: object): Answer {
    const payloadBytes = encodedBytes(encoding, values.length)
    const room = reservedBytes(encodedBytes('float32', values.length))
    const at = this.#free.findLastIndex(({ byteLength }) => byteLength === room)
    const frame = at < 0 ? new ArrayBuffer(room) : this.#free.splice(at, 1)[0]
    const key = { seed: this.#seed, step, lo, hi }
    this.#encoder.encode(encoding, values, key, new Uint8Array(frame, RESERVED, payloadBytes))
    return { frame, length: sealFrame(frame, header, payloadBytes).byteLength }
  }

  /** Takes a frame back that was sent. */
  reuse(frame: ArrayBuffer): void {
    this.#free.push(frame)
  }
}
