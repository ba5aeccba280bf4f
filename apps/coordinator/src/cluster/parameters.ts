import { closeFrame, openFrame, payloadOf, RESERVED, reserveFrame, sealFrame } from '@convoy/protocol'
import { encodedBytes, roundToBf16 } from '@convoy/reduction'
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
  /** All of it; complete when `next` was told of the last value, or `bytes` was asked for. */
  #bytes: Uint8Array = new Uint8Array()
  /** What goes ahead, and what follows it, where they go one by one. */
  readonly #portions: Partial<Record<'tail' | 'head', ArrayBuffer>> = {}
  #tail: Uint8Array | undefined
  #head: Uint8Array | undefined
  /** Which values went ahead: those from here on; undefined where none did. */
  #from: number | undefined
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

  /** All bytes to send. */
  get bytes(): Uint8Array {
    if (this.#summed < this.#bytes.length) this.next(this.values.length)
    return this.#bytes
  }

  /** What goes ahead of the rest: the values from number `from` on, which are complete. */
  tail(from: number): Uint8Array {
    this.#from = from
    return (this.#tail ??= this.#portion('tail', from, this.values.length, {
      kind: 'parametersTail',
      from,
      version: this.version,
    }))
  }

  /** What makes it complete for those who have what went ahead. */
  head(): Uint8Array {
    const { step, version } = this
    const from = this.#from!
    return (this.#head ??= this.#portion('head', 0, from, {
      kind: 'parameters',
      step,
      ahead: { from, version },
    }))
  }

  #portion(which: 'tail' | 'head', first: number, end: number, header: object): Uint8Array {
    const encoding = this.#rounded ? 'bf16' : 'float32'
    const length = encodedBytes(encoding, end - first)
    const buffer = (this.#portions[which] ??= reserveFrame(length))
    const values = this.values.subarray(first, end)
    if (this.#rounded) roundToBf16(values, new Uint16Array(buffer, RESERVED, values.length))
    else payloadOf(buffer).set(values)
    return sealFrame(buffer, header, length)
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
    this.#sum = crc32(this.#bytes.subarray(from, end), this.#sum)
    this.#summed = last ? this.#bytes.length : end
    if (last) closeFrame(this.#bytes, this.#sum)
    return this.#bytes.subarray(from, last ? undefined : end)
  }

  /** Says after how many updates these values are, and in which version; `next` follows as they come. */
  open(step: number, version: number): void {
    this.version = version
    this.#sum = this.#summed = 0
    this.#from = this.#tail = this.#head = undefined
    this.step = step
    this.#bytes = openFrame(
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
export type SentParameters = Pick<ParameterFrame, 'version' | 'bytes' | 'retain' | 'release'> & {
  readonly head?: () => Uint8Array
}

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
  #begun: ParameterFrame | undefined

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

  /** Makes the next version, or goes on with what was begun of it; `fill` puts the values in, telling `next` of the frame where it is sent. */
  advance(step: number, fill: (next: ParameterFrame) => void): void {
    const next = this.begin(step)
    this.#begun = undefined
    fill(next)
    this.current.release()
    this.current = next
  }

  /** The next version, before it is complete. */
  begin(step: number): ParameterFrame {
    if (this.#begun) return this.#begun
    const next = this.#take()
    next.open(step, ++this.#version)
    next.retain()
    return (this.#begun = next)
  }

  /** Gives up what was begun of the next version, if anything was. */
  takeBack(): void {
    this.#begun?.release()
    this.#begun = undefined
  }

  #take(): ParameterFrame {
    return this.#free.pop() ?? new ParameterFrame(this.size, this.#down, this.#free)
  }
}
