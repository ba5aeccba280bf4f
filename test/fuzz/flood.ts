import { decodeFrame, encodeFrame } from '@convoy/protocol'
import { connect, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Fuzz, wire, type Asked, type Hostile, type Shape } from './frames.ts'

/** A flood, and what became of it: what its process is given, and what it says. */
export interface FloodOptions extends Shape {
  readonly port: number
  readonly token: string
  readonly seed: number
  /** Malformed frames to send on connections that have the token. */
  readonly frames: number
  /** Connections to open without it. */
  readonly connections: number
  /** Frames a second at most. */
  readonly rate: number
}

export interface FloodProgress {
  frames: number
  connections: number
  /** Connections on which the frames were sent. */
  sessions: number
  seconds: number
  over: boolean
}

/** Authenticated sessions at once, of them with work, and connections without the token at once. */
const SESSIONS = 24
const WORKING = 3
const STRANGERS = 300
/** Nothing is waited for longer than this, in milliseconds. */
const PATIENCE = 20_000
/** Messages that a coordinator takes before it ends a connection; hello is one more. */
const UNASKED = 32
/** Wrong answers of one session, at most. */
const MOST_ANSWERS = 40

/** Takes apart what a coordinator sends, as far as it matters here. */
class Reader {
  #bytes: Buffer = Buffer.alloc(0)
  #parts: Buffer[] = []
  #upgraded = false
  readonly #heard: (message: Record<string, unknown> | 'upgraded' | 'closing') => void

  constructor(heard: (message: Record<string, unknown> | 'upgraded' | 'closing') => void) {
    this.#heard = heard
  }

  read(chunk: Buffer): void {
    this.#bytes = this.#bytes.length > 0 ? Buffer.concat([this.#bytes, chunk]) : chunk
    if (!this.#upgraded) {
      const end = this.#bytes.indexOf('\r\n\r\n')
      if (end < 0) return
      this.#upgraded = true
      const accepted = this.#bytes.toString('latin1', 9, 12) === '101'
      this.#bytes = this.#bytes.subarray(end + 4)
      this.#heard(accepted ? 'upgraded' : 'closing')
    }
    for (;;) {
      const bytes = this.#bytes
      if (bytes.length < 2) return
      const short = bytes[1] & 0x7f
      const start = short < 126 ? 2 : short === 126 ? 4 : 10
      if (bytes.length < start) return
      const length = short < 126 ? short : short === 126 ? bytes.readUInt16BE(2) : bytes.readUInt32BE(6)
      if (bytes.length < start + length) return
      const opcode = bytes[0] & 15
      const body = bytes.subarray(start, start + length)
      this.#bytes = bytes.subarray(start + length)
      if (opcode === 8) this.#heard('closing')
      if (opcode > 2) continue
      this.#parts.push(body)
      if (!(bytes[0] & 0x80)) continue
      const whole = this.#parts.length > 1 ? Buffer.concat(this.#parts) : body
      this.#parts = []
      this.#heard(decodeFrame(whole).header as Record<string, unknown>)
    }
  }
}

const request = (...lines: string[]) =>
  [
    'GET / HTTP/1.1',
    'Host: 127.0.0.1',
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
    ...lines,
    '',
    '',
  ].join('\r\n')

class Flood {
  readonly #options: FloodOptions
  readonly #progress: FloodProgress = { frames: 0, connections: 0, sessions: 0, seconds: 0, over: false }
  readonly #started = performance.now()
  #working = 0
  #next = 0

  constructor(options: FloodOptions) {
    this.#options = options
  }

  /** Runs the whole flood, which is bounded in frames, connections and time. */
  async run(report: (progress: FloodProgress) => void): Promise<void> {
    const { frames, connections, rate } = this.#options
    const tell = () => {
      this.#progress.seconds = (performance.now() - this.#started) / 1000
      report(this.#progress)
    }
    const ticker = setInterval(tell, 1_000)
    // However slow the other side is, this ends.
    const latest = performance.now() + 60_000 + 10_000 * (frames / rate)
    const due = () => (performance.now() - this.#started) / 1000
    const sessions = Array.from({ length: SESSIONS }, async () => {
      while (this.#progress.frames < frames && performance.now() < latest) {
        if (this.#progress.frames > rate * due()) await sleep(5)
        else await this.#session(this.#next++)
      }
    })
    // The strangers come over the same time.
    const each = frames / rate / Math.max(1, connections)
    const strangers = Array.from({ length: STRANGERS }, async () => {
      while (this.#progress.connections < connections && performance.now() < latest) {
        if (this.#progress.connections * each > due()) await sleep(20)
        else await this.#stranger(this.#progress.connections++)
      }
    })
    await Promise.all([...sessions, ...strangers])
    clearInterval(ticker)
    this.#progress.over = true
    tell()
  }

  /** A connection and its end; `start` gets a function that ends it. */
  #connection(start: (socket: Socket, end: () => void) => void): Promise<void> {
    return new Promise((resolve) => {
      const socket = connect(this.#options.port, '127.0.0.1')
      socket.setNoDelay(true)
      const timer = setTimeout(() => socket.destroy(), PATIENCE)
      socket.on('error', () => {})
      socket.on('close', () => {
        clearTimeout(timer)
        resolve()
      })
      start(socket, () => socket.destroy())
    })
  }

  /** One connection with the token. */
  #session(number: number): Promise<void> {
    const { seed, token } = this.#options
    const fuzz = new Fuzz(seed, 2 * number, this.#options)
    this.#progress.sessions++
    const kind = fuzz.below(100)
    const working = kind < 4 && this.#working < WORKING
    const early = kind >= 85
    if (working) this.#working++
    const send = (socket: Socket, frames: readonly Hostile[]) => {
      this.#progress.frames += frames.length
      socket.write(Buffer.concat(frames.map(({ bytes }) => bytes)))
    }
    return this.#connection((socket, end) => {
      socket.write(request(`Authorization: Bearer ${token}`))
      let sent = 0
      const reader = new Reader((message) => {
        if (message === 'upgraded') {
          if (early) {
            // Before hello, whatever it is.
            send(socket, [fuzz.below(2) ? fuzz.fatal() : { ...fuzz.mild(), last: true }])
            // Some mild ones are a hello, or ask for no answer.
            setTimeout(end, 2_000)
          } else {
            socket.write(wire(fuzz.hello()))
            if (!working) send(socket, this.#frames(fuzz))
            if (!working) setTimeout(end, 2_000)
          }
        } else if (message === 'closing') {
          // Some leave as they should, some break off, some just stay.
          if (fuzz.below(20) > 0) end()
          else if (fuzz.below(2)) socket.resetAndDestroy()
        } else if (working && message['kind'] === 'welcome') {
          socket.write(wire(encodeFrame({ kind: 'ready' })))
          setTimeout(end, 1_000 + fuzz.below(2_000))
        } else if (working && message['kind'] === 'work' && sent < MOST_ANSWERS) {
          const answers = fuzz.answers(message as unknown as Asked)
          sent += answers.length
          send(
            socket,
            answers.map((bytes) => ({ bytes, last: false })),
          )
        }
      })
      socket.on('data', (chunk) => reader.read(chunk))
    }).finally(() => {
      if (working) this.#working--
    })
  }

  /** The frames of a session: as many as it takes until it is ended. */
  #frames(fuzz: Fuzz): Hostile[] {
    const frames: Hostile[] = []
    const count = fuzz.below(5) === 0 ? fuzz.below(30) : UNASKED
    for (let i = 0; i < count; i++) frames.push(fuzz.mild())
    if (count < UNASKED) frames.push(fuzz.fatal())
    return frames
  }

  /** One connection without the token. */
  #stranger(number: number): Promise<void> {
    const fuzz = new Fuzz(this.#options.seed, 2 * number + 1, this.#options)
    return this.#connection((socket, end) => {
      const drain = () => socket.on('data', () => {})
      switch (number % 10) {
        case 0:
        case 1:
          drain()
          socket.write(request())
          break
        case 2:
        case 3:
          drain()
          socket.write(request(`Authorization: Bearer ${this.#options.token.slice(0, -1)}x`))
          break
        // It breaks off in the middle of the answer.
        case 4:
          socket.write(request('Authorization: Bearer wrong'))
          socket.once('data', () => socket.resetAndDestroy())
          break
        case 5:
          socket.once('connect', () => {
            socket.write(request())
            socket.resetAndDestroy()
          })
          break
        // Half a request, or none: until it is dropped.
        case 6:
          if (number % 20 === 6) socket.write('GET / HTTP/1.1\r\nHost: x\r\n')
          drain()
          break
        // A slow one.
        case 7: {
          drain()
          let at = 0
          const timer = setInterval(() => socket.writable && socket.write(request()[at++] ?? '\n'), 400)
          socket.once('close', () => clearInterval(timer))
          break
        }
        case 8:
          drain()
          socket.write(fuzz.mild().bytes)
          break
        default:
          drain()
          socket.write(
            number % 20 === 9
              ? request(`X: ${'x'.repeat(20_000)}`)
              : request().replace('dGhl', '').replace('GET', 'POST'),
          )
          setTimeout(end, 3_000)
      }
    })
  }
}

const options = JSON.parse(process.argv[2]) as FloodOptions
await new Flood(options).run((progress) => console.log(JSON.stringify(progress)))
process.exit(0)
