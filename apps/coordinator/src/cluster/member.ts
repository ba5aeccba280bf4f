import { encodeFrame, type CoordinatorMessage, type MessageOf, type WorkerMessage } from '@convoy/protocol'
import type { WebSocket } from 'ws'
import type { NumericsClass } from '../numerics.ts'
import { Pace } from './pace.ts'
import { Tally } from './tally.ts'
import type { ParameterFrame, SentParameters } from './parameters.ts'

/** A piece of work that was sent to a worker and not answered yet. */
export interface Assignment {
  readonly id: number
  readonly lo: number
  readonly hi: number
  readonly step: number
  readonly samples: number
  /** When the worker could start on it, in ms of `performance.now()`; set once those before it are answered. */
  startedAt: number
  /** Whether its deadline passed. */
  late: boolean
  /** Where its gradient may be cut; 0 where it may not, or the end has come. */
  cut: number
}

export type MemberState = 'compiling' | 'ready' | 'stalled' | 'leaving' | 'gone'

/** One worker as the coordinator sees it, for as long as its connection lives. */
export class Member {
  readonly name: string
  readonly instance: string
  readonly engine: string
  readonly numerics: NumericsClass
  readonly holdsData: boolean
  /** Whether it has workers of its own. */
  readonly relay: boolean
  /** Outlives reconnections: the cluster hands it on to the next connection of the same worker. */
  readonly pace: Pace
  readonly tally: Tally
  readonly socket: WebSocket
  state: MemberState = 'compiling'
  /** In ms of `performance.now()`. */
  readonly joinedAt = performance.now()
  /** Whether it was named for compiling longer than anyone should. */
  compilesLate = false
  /** In the order in which the worker will do them. */
  readonly assignments = new Map<number, Assignment>()
  /** The version of the parameters that were handed to the socket last. */
  parametersVersion = 0
  /** Steps since it was given work. */
  idleSteps = 0
  /** The version of which this worker has what went ahead. */
  #aheadVersion = 0
  /** Set while a frame is on its way: to be called when it has left. */
  #sending: (() => void) | undefined
  readonly #cancelled = new Set<number>()

  constructor(
    hello: MessageOf<WorkerMessage, 'hello'>,
    name: string,
    socket: WebSocket,
    holdsData: boolean,
    pace: Pace = new Pace(),
    tally: Tally = new Tally(),
  ) {
    this.name = name
    this.instance = hello.instance
    this.engine = hello.engine
    this.numerics = hello.numerics
    this.holdsData = holdsData
    this.relay = hello.relay === true
    this.socket = socket
    this.pace = pace
    this.tally = tally
  }

  send(message: CoordinatorMessage, ...payloads: readonly ArrayBufferView[]): void {
    if (this.socket.readyState !== this.socket.OPEN) return
    const frame = encodeFrame(message, ...payloads)
    this.tally.sent += frame.byteLength
    this.socket.send(frame)
  }

  /**
   * Sends the newest parameters unless an older frame is still on its way: a slow link gets fewer frames, never a
   * queue of them.
   *
   * @param flushed Called when a frame has left; time to look whether a newer one is due.
   * @returns Whether this worker now has, or is being sent, the newest parameters.
   */
  offerParameters(frame: SentParameters, flushed: () => void): boolean {
    if (this.parametersVersion === frame.version) return true
    if (!this.beginParameters(frame, flushed)) return false
    this.sendParameters(this.hasTail(frame) ? frame.head!() : frame.bytes, true)
    return true
  }

  /**
   * Sends what is complete of the parameters that come next, unless these are the first here or older ones are still on their way.
   *
   * @param from Which values are: those from this number on.
   * @param present The version that all have by now who are to have this.
   */
  sendAhead(frame: ParameterFrame, from: number, present: number): void {
    if (this.#sending || this.parametersVersion !== present || this.relay) return
    if (this.socket.readyState !== this.socket.OPEN) return
    const bytes = frame.tail(from)
    frame.retain()
    this.#aheadVersion = frame.version
    this.tally.sent += bytes.byteLength
    this.socket.send(bytes, () => frame.release())
  }

  /** Whether what went ahead of these parameters was sent here. */
  hasTail({ version }: Pick<SentParameters, 'version'>): boolean {
    return this.#aheadVersion === version
  }

  /** As `offerParameters`, but what is sent, and when, is left to calls of `sendParameters`, all in one go. */
  beginParameters(frame: SentParameters, flushed: () => void): boolean {
    if (this.#sending || this.socket.readyState !== this.socket.OPEN) return false
    frame.retain()
    this.parametersVersion = frame.version
    this.#sending = () => {
      this.#sending = undefined
      frame.release()
      flushed()
    }
    return true
  }

  /** The next bytes of the frame at hand. */
  sendParameters(bytes: Uint8Array, last: boolean): void {
    this.tally.sent += bytes.byteLength
    this.socket.send(bytes, { binary: true, fin: last }, last ? this.#sending : undefined)
  }

  /** Tells the worker that nobody waits for this any more, and remembers that an answer may still come. */
  cancel(assignment: Assignment): void {
    const { id, step, lo, hi } = assignment
    this.ignore(id)
    this.send({ kind: 'cancel', id, step, lo, hi })
  }

  /** Has an answer to this request come to nothing, as one that was cancelled. */
  ignore(id: number): void {
    this.#cancelled.add(id)
  }

  /** Whether an answer to this request may come: it was sent, and not answered yet. */
  awaits(id: number): boolean {
    return this.assignments.has(id) || this.#cancelled.has(id)
  }

  /** Whether this request was cancelled; it may be asked once for each. */
  wasCancelled(id: number): boolean {
    return this.#cancelled.delete(id)
  }
}
