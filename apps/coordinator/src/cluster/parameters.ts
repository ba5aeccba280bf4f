import { closeFrame, openFrame, payloadOf, RESERVED, reserveFrame } from '@convoy/protocol'
import { roundToBf16 } from '@convoy/reduction'
import { crc32 } from 'node:zlib'

/** How parameters are sent to workers. */
export type Down = 'float32' | 'bf16'

/** One version of the parameters, in the form in which it is sent. Immutable while anyone holds it. */
export class ParameterFrame {
  /** All of them, as the optimizer has them. */
  readonly values: Float32Array
  step = -1
  /** Another number for each content, also where a step is done again. */
  version = 0
  /** The bytes to send. */
  bytes: Uint8Array = new Uint8Array()
  readonly #buffer: ArrayBuffer
  /** Where they are rounded, if so they are sent. */
  readonly #rounded: Uint16Array | undefined
  readonly #free: ParameterFrame[]
  #holders = 0
  /** CRC-32 of the first `#summed` bytes. */
  #sum = 0
  #summed = 0

  constructor(size: number, down: Down, free: ParameterFrame[]) {
    this.#buffer = reserveFrame((down === 'bf16' ? 2 : 4) * size)
    this.#rounded = down === 'bf16' ? new Uint16Array(this.#buffer, RESERVED, size) : undefined
    this.values = this.#rounded ? new Float32Array(size) : payloadOf(this.#buffer)
    this.#free = free
  }

  /**
   * The next bytes to send, up to value number `complete`; with the last value come the bytes that close the frame. All
   * values have to be told, in their order, before the frame is sent to anyone.
   */
  next(complete: number): Uint8Array {
    const from = this.#summed
    const last = complete === this.values.length
    const rounded = this.#rounded
    const { BYTES_PER_ELEMENT } = rounded ?? this.values
    const end = RESERVED + BYTES_PER_ELEMENT * complete
    if (rounded) {
      const first = Math.max(0, from - RESERVED) / BYTES_PER_ELEMENT
      roundToBf16(this.values.subarray(first, complete), rounded.subarray(first, complete))
    }
    this.#sum = crc32(this.bytes.subarray(from, end), this.#sum)
    this.#summed = end
    if (last) closeFrame(this.bytes, this.#sum)
    return this.bytes.subarray(from, last ? undefined : end)
  }

  /** Says after how many updates these values are, and in which version; `next` follows as they come. */
  open(step: number, version: number): void {
    this.version = version
    this.#sum = this.#summed = 0
    this.step = step
    this.bytes = openFrame(
      this.#buffer,
      { kind: 'parameters', step },
      (this.#rounded ?? this.values).byteLength,
    )
  }

  retain(): void {
    this.#holders++
  }

  release(): void {
    if (--this.#holders === 0) this.#free.push(this)
  }
}

/** Parameters that are complete, as they are sent. */
export type SentParameters = Pick<ParameterFrame, 'version' | 'bytes' | 'retain' | 'release'>

/**
 * The run's parameters. Each update writes a frame of its own, so that a slow worker that is still being
 * sent the old one can never see a mix of both. Frames are reused once nobody holds them.
 */
export class Parameters {
  readonly size: number
  current: ParameterFrame
  #version = 0
  readonly #down: Down
  readonly #free: ParameterFrame[] = []

  /** @param down How they are sent; bf16 rounds what workers compute with, not what is updated. */
  constructor(initial: Float32Array, step: number, down: Down = 'float32') {
    this.size = initial.length
    this.#down = down
    this.current = this.#take()
    this.current.values.set(initial)
    this.current.open(step, ++this.#version)
    this.current.next(initial.length)
    this.current.retain()
  }

  /** Makes the next version, whose values `fill` puts in, telling `next` of the frame. */
  advance(step: number, fill: (next: ParameterFrame) => void): void {
    const next = this.#take()
    next.open(step, ++this.#version)
    next.retain()
    fill(next)
    this.current.release()
    this.current = next
  }

  #take(): ParameterFrame {
    return this.#free.pop() ?? new ParameterFrame(this.size, this.#down, this.#free)
  }
}
