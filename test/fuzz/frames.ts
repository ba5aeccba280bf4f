import { closeFrame, encodeFrame, PROTOCOL_VERSION, TRAILER } from '@convoy/protocol'
import { RandomStream } from '@convoy/random'
import { crc32 } from 'node:zlib'

const numerics = { engine: 'fuzz', version: '1', precision: 'float32', instructionSet: 'none', threads: 1 }

/** What the frames are made for. */
export interface Shape {
  /** Bytes of a right gradient. */
  readonly gradientBytes: number
}

/** A request that was received, as far as an answer has to repeat it. */
export interface Asked {
  readonly id: number
  readonly step: number
  readonly lo: number
  readonly hi: number
  readonly count: number
}

/** A malformed message as bytes of a WebSocket. */
export interface Hostile {
  readonly bytes: Buffer
  /** Whether the coordinator ends the connection by it, so that nothing behind it is read. */
  readonly last: boolean
}

const BINARY = 2
const TEXT = 1

/** One WebSocket frame of a client, masked with zeros. */
export function wire(payload: Uint8Array, opcode = BINARY, fin = true): Buffer {
  const { length } = payload
  const head = Buffer.alloc(length < 126 ? 6 : length < 65_536 ? 8 : 14)
  head[0] = (fin ? 0x80 : 0) | opcode
  if (length < 126) head[1] = 0x80 | length
  else if (length < 65_536) {
    head[1] = 0x80 | 126
    head.writeUInt16BE(length, 2)
  } else {
    head[1] = 0x80 | 127
    head.writeUInt32BE(length, 6)
  }
  return Buffer.concat([head, payload])
}

/** Malformed messages made from valid ones: the same for the same seed and connection. */
export class Fuzz {
  readonly #random: RandomStream
  readonly #shape: Shape
  #before = wire(encodeFrame({ kind: 'ready' }))

  constructor(seed: number, connection: number, shape: Shape) {
    this.#random = new RandomStream(seed, connection)
    this.#shape = shape
  }

  below(n: number): number {
    return this.#random.below(n)
  }

  #pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)]
  }

  #bytes(length: number): Buffer {
    const bytes = Buffer.alloc(length + 3)
    for (let i = 0; i < length; i += 4) bytes.writeUInt32LE(this.#random.uint32(), i)
    return bytes.subarray(0, length)
  }

  /** The greeting of a worker by one of so many names. */
  hello(names = 2_000): Uint8Array {
    return encodeFrame(this.#hello(names))
  }

  #hello(names: number): Record<string, unknown> {
    return {
      kind: 'hello',
      version: PROTOCOL_VERSION,
      name: `fuzz-${this.below(names)}`,
      instance: this.#bytes(16).toString('hex'),
      engine: 'fuzz',
      numerics,
      cores: 1,
    }
  }

  /** A valid message of any kind, about work that this peer was most likely not given. */
  #message(): Record<string, unknown> {
    const at = { id: this.below(5_000), step: this.below(500), lo: this.below(8), hi: 1 + this.below(8) }
    switch (this.below(8)) {
      case 0:
        return this.#hello(1_000_000)
      case 1:
        return { kind: 'ready' }
      case 2:
        return { kind: 'leaving', finishing: this.below(100) }
      case 3:
        return { kind: 'failed', ...at, why: 'x'.repeat(this.below(200)) }
      case 4:
        return { kind: 'evaluation', ...at, seconds: 0.1 }
      default:
        return { kind: 'gradient', ...at, count: 16, loss: 36.8, correct: 2, seconds: 0.1 }
    }
  }

  /** The payload of a gradient or evaluation that must not be taken: of another size, or not finite. */
  #payload(): Buffer {
    if (this.below(50) > 0) return this.#bytes(4 * this.below(64))
    const { gradientBytes } = this.#shape
    if (this.below(2)) return Buffer.alloc(gradientBytes + 4 * (1 + this.below(100)))
    const payload = Buffer.alloc(gradientBytes)
    payload.writeFloatLE(this.#pick([NaN, Infinity, -Infinity]), 4 * this.below(gradientBytes / 4))
    return payload
  }

  #frame(header: object): Buffer {
    const { kind } = header as { kind?: unknown }
    const carries = kind === 'gradient' || kind === 'evaluation' || this.below(10) === 0
    return Buffer.from(carries ? encodeFrame(header, this.#payload()) : encodeFrame(header))
  }

  #value(): unknown {
    return this.#pick<() => unknown>([
      () => null,
      () => true,
      () => -1,
      () => 2 ** 40,
      () => NaN,
      () => Infinity,
      () => 0.5,
      () => '',
      () => 'x'.repeat(3_000),
      () => '../../etc/passwd\n\0',
      () => [],
      () => Array.from({ length: 50 }, (_, i) => i),
      () => ({ __proto__: null, constructor: 1 }),
      () => this.#bytes(40),
      () => 12n ** 16n,
      () => this.#random.uint32(),
    ])()
  }

  /** A frame whose sum at the end is right. */
  #summed(frame: Buffer): Buffer {
    if (frame.length > TRAILER) closeFrame(frame, crc32(frame.subarray(0, -TRAILER)))
    return frame
  }

  /** A message that is refused, or is no fault of its own; the connection stays. */
  mild(): Hostile {
    const last = false
    const message = this.#message()
    switch (this.below(14)) {
      // A field of another type, one too few, one too many.
      case 0:
      case 1:
        return {
          bytes: wire(this.#frame({ ...message, [this.#pick(Object.keys(message))]: this.#value() })),
          last,
        }
      case 2: {
        const { [this.#pick(Object.keys(message))]: _, ...rest } = message
        return { bytes: wire(this.#frame(rest)), last }
      }
      case 3:
        return { bytes: wire(this.#frame({ ...message, [`x${this.below(9)}`]: this.#value() })), last }
      // A kind that only the coordinator may send, or nobody.
      case 4: {
        const kind = this.#pick([
          'work',
          'parameters',
          'welcome',
          'cancel',
          'goodbye',
          'dance',
          '__proto__',
          '',
        ])
        return { bytes: wire(this.#frame({ ...message, kind })), last }
      }
      // Lies about lengths, under a right sum.
      case 5: {
        const frame = this.#frame(message)
        frame.writeUInt32LE(
          this.#pick([0, 1, frame.length, 2 ** 31, 2 ** 32 - 1, this.below(2_000)]),
          4 * this.below(2),
        )
        return { bytes: wire(this.#summed(frame)), last }
      }
      case 6: {
        const frame = this.#frame(message)
        return { bytes: wire(this.#summed(frame.subarray(0, 12 + this.below(frame.length - 12)))), last }
      }
      // msgpack that claims to be huge, or is deep.
      case 7: {
        const packed = this.#pick<() => Buffer>([
          () => Buffer.alloc(1_000 + this.below(15_000), this.#pick([0x91, 0x81, 0xc1, 0xd9])),
          () => Buffer.from([this.#pick([0xdd, 0xdf, 0xdb, 0xc6, 0xc9]), 0xff, 0xff, 0xff, 0xff, 1, 2, 3]),
          () => this.#bytes(1 + this.below(300)),
          () => Buffer.from([0xc7, this.below(9), this.below(256), ...this.#bytes(9)]),
        ])()
        const frame = Buffer.alloc(((8 + packed.length + 7) & ~7) + TRAILER)
        frame.writeUInt32LE(packed.length, 0)
        frame.writeUInt32LE(frame.length - TRAILER, 4)
        packed.copy(frame, 8)
        return { bytes: wire(this.#summed(frame)), last }
      }
      // Bits flipped before the sum was made.
      case 8: {
        const frame = this.#frame(message)
        const head = Math.min(frame.length, 200)
        for (let i = this.below(4); i >= 0; i--) frame[this.below(head)] ^= 1 << this.below(8)
        return { bytes: wire(this.#summed(frame)), last }
      }
      case 9:
        return { bytes: wire(this.#bytes(4 + this.below(400)), TEXT), last }
      // In pieces.
      case 10: {
        const frame = this.#frame(message)
        const cut = 1 + this.below(7)
        const size = Math.ceil(frame.length / cut)
        const parts: Buffer[] = []
        for (let at = 0; at < frame.length; at += size) {
          parts.push(wire(frame.subarray(at, at + size), at === 0 ? BINARY : 0, at + size >= frame.length))
        }
        return { bytes: Buffer.concat(parts), last }
      }
      case 11:
        return { bytes: wire(this.#bytes(4 + this.below(100)), this.#pick([9, 10])), last }
      // A valid message, or the same once more.
      case 12:
        return { bytes: (this.#before = this.below(2) ? this.#before : wire(this.#frame(message))), last }
      default:
        return {
          bytes: wire(
            this.#frame({ ...message, step: this.#random.uint32() >>> 1, id: this.below(100_000) }),
          ),
          last,
        }
    }
  }

  /** A message, or what is none, by which the connection ends. */
  fatal(): Hostile {
    const last = true
    const frame = this.#frame(this.#message())
    switch (this.below(9)) {
      case 0:
        frame[this.below(frame.length)] ^= 1 << this.below(8)
        return { bytes: wire(frame), last }
      case 1:
        return { bytes: wire(frame.subarray(0, 12 + this.below(frame.length - 12))), last }
      case 2:
        return { bytes: wire(this.#bytes(12 + this.below(4_000))), last }
      // Too long: as announced, since nobody reads it.
      case 3: {
        const head = Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        head.writeUInt32BE(this.#pick([0, 1, 2 ** 20, 2 ** 31]), 2)
        head.writeUInt32BE(2 ** 31, 6)
        return { bytes: Buffer.concat([head, this.#bytes(100)]), last }
      }
      // No WebSocket frame: reserved bits, unknown opcodes, no mask, a control frame that is too long or cut.
      case 4:
        return { bytes: wire(frame, BINARY | this.#pick([0x10, 0x20, 0x40])), last }
      case 5:
        return { bytes: wire(frame, this.#pick([3, 4, 7, 11, 15, 0])), last }
      case 6:
        return { bytes: Buffer.concat([Buffer.from([0x82, 20]), this.#bytes(20)]), last }
      case 7:
        return { bytes: this.#pick([wire(Buffer.alloc(200), 9), wire(Buffer.alloc(4), 9, false)]), last }
      // More pieces than a message has.
      default: {
        const parts = [wire(frame.subarray(0, 1), BINARY, false)]
        for (let i = 0; i < 20; i++) parts.push(wire(frame.subarray(i, i + 1), 0, false))
        return { bytes: Buffer.concat(parts), last }
      }
    }
  }

  /** Wrong answers to a request that was received; none of them may be taken. */
  answers({ id, step, lo, hi, count }: Asked): Buffer[] {
    const { gradientBytes } = this.#shape
    const good = { kind: 'gradient', id, step, lo, hi, count, loss: 36.8, correct: 1, seconds: 0.01 }
    const right = Buffer.alloc(gradientBytes)
    const poisoned = Buffer.alloc(gradientBytes)
    poisoned.writeFloatLE(this.#pick([NaN, Infinity, -Infinity]), 4 * this.below(gradientBytes / 4))
    const say = (header: object, payload: Buffer) => wire(encodeFrame(header, payload))
    switch (this.below(9)) {
      case 0:
        return [say(good, poisoned)]
      case 1:
        return [say({ ...good, loss: this.#pick([NaN, Infinity]) }, right)]
      case 2:
        return [say(good, right.subarray(0, right.length - 4 * (1 + this.below(9))))]
      case 3:
        return [say({ ...good, step: step + 1 }, right)]
      case 4:
        return [say({ ...good, lo: lo + 1, hi: hi + 1 }, right)]
      case 5:
        return [say({ ...good, count: count + 1 }, right)]
      case 6:
        return [say({ ...good, kind: 'failed', correct: undefined }, right)]
      // The same wrong answer twice.
      case 7: {
        const frame = say(good, poisoned)
        return [frame, frame]
      }
      default:
        // It keeps silent.
        return []
    }
  }
}
