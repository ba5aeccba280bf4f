import { asConvoyError, ConvoyError, type ErrorCode } from '@convoy/errors'
import {
  encodeFrame,
  HEARTBEAT,
  PROTOCOL_VERSION,
  readWorkerMessage,
  SILENCE,
  type CoordinatorMessage,
  type WorkerMessage,
} from '@convoy/protocol'
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'
import { Member } from '../cluster/index.ts'
import { SILENT } from '../events.ts'
import type { Hall, Hello, Welcome } from './hall.ts'
import { Budget, hangUp, HANDSHAKE, MAX_BEFORE_HELLO, UNASKED } from './limits.ts'

/** What ws says of messages that are too long, or come in too many parts. */
const oversize = new Set([
  'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH',
  'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH',
  'WS_ERR_TOO_MANY_BUFFERED_PARTS',
])

export function say(socket: WebSocket, message: CoordinatorMessage): void {
  if (socket.readyState === socket.OPEN) socket.send(encodeFrame(message))
}

/** A WebSocket that may be a worker's: it says hello in time, or goes; what it says then, the cluster hears. */
export class Connection {
  readonly #hall: Hall
  readonly #socket: WebSocket
  readonly #line: Duplex
  #member: Member | undefined
  /** Whether it said hello. */
  #greeted = false
  /** Whether it was told to go; what still comes is not read. */
  #over = false
  readonly #budget = new Budget(UNASKED)
  readonly #slow: NodeJS.Timeout
  readonly #watch: NodeJS.Timeout
  /** Bytes that came before its hello was taken. */
  #early = 0
  #heard = performance.now()

  /** @param line What carries the WebSocket. */
  constructor(hall: Hall, socket: WebSocket, line: Duplex) {
    this.#hall = hall
    this.#socket = socket
    this.#line = line
    this.#slow = setTimeout(() => this.#terminate('E_HANDSHAKE'), HANDSHAKE)
    line.on('data', this.#weigh)
    this.#watch = setInterval(() => this.#watchSilence(), HEARTBEAT)
    this.#watch.unref()
    socket.on('ping', () => this.#spend())
    socket.on('pong', () => {
      if (this.#spend()) this.#heard = performance.now()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => this.#failed(error))
    socket.on('close', (code) => this.#closed(code))
    socket.on('message', (data, isBinary) => this.#hear(data as Buffer, isBinary))
  }

  /** Ends the connection without a word. */
  #terminate(code: ErrorCode): void {
    this.#hall.refused?.(code)
    this.#socket.terminate()
  }

  /** Until it said who it is, it may not send what is as large as a gradient. */
  readonly #weigh = (chunk: Buffer): void => {
    this.#early += chunk.byteLength
    if (this.#early > MAX_BEFORE_HELLO) this.#terminate('E_TOO_LARGE')
  }

  /** It said who it is, or will not any more. */
  #known(): void {
    clearTimeout(this.#slow)
    this.#line.off('data', this.#weigh)
  }

  /** Silence is watched by looking at a clock on each beat, so that a message costs no timer. */
  #watchSilence(): void {
    if (performance.now() - this.#heard <= SILENCE) return
    this.#leave(SILENT)
    this.#socket.terminate()
  }

  #leave(reason: string): void {
    if (this.#member) this.#hall.cluster.leave(this.#member, reason)
  }

  /** Counts a message that nobody asked for; one too many ends the connection. */
  #spend(): boolean {
    if (this.#over) this.#socket.terminate()
    else if (this.#budget.take()) return true
    else {
      const remedy = 'Use the same version of Convoy on both sides.'
      this.#end(new ConvoyError('E_RATE', 'more messages than were asked for', remedy))
    }
    return false
  }

  /** Ends the connection in words. */
  #end(error: ConvoyError): void {
    const { code, message, remedy } = error
    this.#over = true
    this.#known()
    this.#hall.refused?.(code)
    this.#leave(message)
    say(this.#socket, { kind: 'goodbye', code, message, remedy })
    hangUp(this.#socket, 1008)
  }

  #failed({ code = '' }: NodeJS.ErrnoException): void {
    if (!this.#over && code.startsWith('WS_ERR_'))
      this.#hall.refused?.(oversize.has(code) ? 'E_TOO_LARGE' : 'E_FRAME')
    this.#socket.terminate()
  }

  #closed(code: number): void {
    this.#known()
    clearInterval(this.#watch)
    const tooBig = code === 1009 ? ' by what takes no messages of this size' : ''
    this.#leave(`connection closed${tooBig}`)
  }

  #hear(data: Buffer, isBinary: boolean): void {
    if (!this.#spend()) return
    this.#heard = performance.now()
    try {
      if (!isBinary) throw new ConvoyError('E_MESSAGE', 'a text message', 'Convoy speaks binary frames.')
      const { message, payload } = readWorkerMessage(data)
      const member = this.#member
      if (!member) this.#greet(message)
      else {
        member.tally.received += data.byteLength
        if ('id' in message && member.awaits(message.id)) this.#budget.give()
        this.#pass(member, message, payload)
      }
    } catch (thrown) {
      this.#refuse(asConvoyError(thrown))
    }
  }

  #refuse(error: ConvoyError): void {
    if (!this.#member) this.#end(error)
    else if (error.code === 'E_FRAME') {
      // What it was, nobody can tell; the worker connects anew, and its work goes to others.
      this.#hall.refused?.(error.code)
      this.#leave(error.message)
      this.#socket.terminate()
    } else this.#hall.cluster.refuse(this.#member, error)
  }

  /** It says who it is. A relay may have to ask above what it is told then. */
  #greet(message: WorkerMessage): void {
    if (message.kind !== 'hello' || this.#greeted) {
      const when = this.#greeted ? 'welcome' : 'hello'
      throw new ConvoyError('E_MESSAGE', `${message.kind} before ${when}`, 'Say hello, and wait.')
    }
    this.#greeted = true
    clearTimeout(this.#slow)
    const welcome = this.#hall.admit(message)
    if (!(welcome instanceof Promise)) return this.#join(message, welcome)
    welcome
      .then((later) => this.#join(message, later))
      .catch((thrown: unknown) => this.#refuse(asConvoyError(thrown)))
  }

  #join(hello: Hello, welcome: Welcome): void {
    if (this.#over || this.#socket.readyState !== this.#socket.OPEN) return
    const { cluster } = this.#hall
    const { name, pace, tally } = cluster.nameFor(hello.name, hello.instance)
    const member = new Member(hello, name, this.#socket, !welcome.samples, pace, tally)
    cluster.join(member)
    member.send({ kind: 'welcome', version: PROTOCOL_VERSION, name, ...welcome })
    this.#member = member
    this.#known()
  }

  /** Passes a message on to the cluster. */
  #pass(member: Member, message: WorkerMessage, payload: Uint8Array): void {
    const { cluster } = this.#hall
    switch (message.kind) {
      case 'ready':
        return cluster.ready(member)
      case 'gradient':
      case 'evaluation':
        return cluster.answer(member, message, payload)
      case 'tail':
        return cluster.answerTail(member, message, payload)
      case 'leaving':
        return cluster.leaving(member, message.finishing)
      case 'failed':
        return cluster.failed(member, message)
      case 'dishonest':
        if (!member.relay) throw new ConvoyError('E_MESSAGE', 'only a relay has workers', 'Nothing.')
        return cluster.dishonestBelow(member, message)
      case 'hello':
        throw new ConvoyError('E_MESSAGE', 'a second hello', 'Say hello once.')
      default:
        message satisfies never
    }
  }
}
