import type { ErrorCode } from '@convoy/errors'
import type { CoordinatorMessage, MessageOf, WorkerMessage } from './messages.ts'

/** Which parameters went ahead of the others: those from a number on. */
export interface Ahead {
  readonly from: number
  readonly version: number
}

/** A worker's connection → what computes for it. */
export type Order =
  | { kind: 'compile'; welcome: MessageOf<CoordinatorMessage, 'welcome'> }
  | { kind: 'parameters'; step: number; ahead: Ahead | undefined; payload: Uint8Array }
  | ({ kind: 'parametersTail'; payload: Uint8Array } & Ahead)
  | { kind: 'work'; work: MessageOf<CoordinatorMessage, 'work'>; payload: Uint8Array }
  | { kind: 'cancel'; id: number }
  /** Drop all but the request at hand: say at once which that is, and `drained` when it is done. */
  | { kind: 'drain' }
  /** The connection is gone: forget its requests and parameters. */
  | { kind: 'forget' }
  /** The coordinator refused an answer. */
  | { kind: 'refused'; code: string }
  /** A gradient's buffer, back after it was sent. */
  | { kind: 'reuse'; frame: ArrayBuffer }
  | { kind: 'stop' }

/** What computes → its connection. */
export type Outcome =
  | {
      kind: 'engine'
      numerics: MessageOf<WorkerMessage, 'hello'>['numerics']
      description: string
      fingerprint?: string
      relay?: true
    }
  | { kind: 'compiled' }
  /** No more work is to come, until `compiled` is told again. */
  | { kind: 'draining'; finishing?: number }
  /** An answer, sealed and ready to be sent: the first `length` bytes of `frame`. */
  | { kind: 'frame'; frame: ArrayBuffer; length: number; reusable: boolean }
  | { kind: 'failed'; work: MessageOf<CoordinatorMessage, 'work'>; why: string }
  | { kind: 'drained' }
  /** Of a relay: a worker below was wrong. */
  | MessageOf<WorkerMessage, 'dishonest'>
  | { kind: 'error'; code: ErrorCode; message: string; remedy: string; stack?: string }

/** What computes for a worker's connection: a thread with an engine, or the workers below a relay. */
export interface Computer {
  /** Hears what comes of orders; the connection sets it. */
  hear: (outcome: Outcome) => void
  /** Buffers that come with an order are the computer's from then on. */
  order(order: Order): void
  /** Lets go of everything. */
  dispose(): Promise<void>
}
