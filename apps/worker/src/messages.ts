import type { LoadOptions } from '@convoy/data'
import type { EngineChoice, NumericsClass } from '@convoy/engine'
import type { ErrorCode } from '@convoy/errors'
import type { CoordinatorMessage, MessageOf } from '@convoy/protocol'

/** What the compute thread is started with. */
export interface ComputeSetup {
  readonly engine: EngineChoice
  /** A data set of the worker's own. */
  readonly data?: string
  readonly dataOptions?: LoadOptions
}

/** Main thread → compute thread. */
export type Order =
  | { kind: 'compile'; welcome: MessageOf<CoordinatorMessage, 'welcome'> }
  | { kind: 'parameters'; step: number; payload: Uint8Array }
  | { kind: 'work'; work: MessageOf<CoordinatorMessage, 'work'>; payload: Uint8Array }
  | { kind: 'cancel'; id: number }
  /** Drop all but the request at hand: say at once which that is, and `drained` when it is done. */
  | { kind: 'drain' }
  /** The connection is gone: forget its requests and parameters. */
  | { kind: 'forget' }
  /** A gradient's buffer, back after it was sent. */
  | { kind: 'reuse'; frame: ArrayBuffer }
  | { kind: 'stop' }

/** Compute thread → main thread. */
export type Outcome =
  | { kind: 'engine'; numerics: NumericsClass; description: string; fingerprint?: string }
  | { kind: 'compiled' }
  | { kind: 'draining'; finishing?: number }
  /** An answer, sealed and ready to be sent: the first `length` bytes of `frame`. */
  | { kind: 'frame'; frame: ArrayBuffer; length: number; reusable: boolean }
  | { kind: 'failed'; work: MessageOf<CoordinatorMessage, 'work'>; why: string }
  | { kind: 'drained' }
  | { kind: 'error'; code: ErrorCode; message: string; remedy: string; stack?: string }
