import type { ErrorCode } from '@convoy/errors'
import type { CoordinatorMessage, MessageOf, WorkerMessage } from '@convoy/protocol'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Cluster } from '../cluster/index.ts'

/** The answer to a plain HTTP request. */
export interface Page {
  readonly status: number
  readonly type: string
  readonly body: string
}

/** A web page with files of its own, and a WebSocket at `/live`. */
export interface Site {
  /** Answers an HTTP request; false where it has nothing at that path. */
  serve(request: IncomingMessage, response: ServerResponse): boolean
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void
  close(): void
}

export type Hello = MessageOf<WorkerMessage, 'hello'>
/** What a worker is told of the run when it joins. */
export type Welcome = Omit<MessageOf<CoordinatorMessage, 'welcome'>, 'kind' | 'version' | 'name'>

/** What the server needs to know of the run. */
export interface Hall {
  readonly cluster: Cluster
  /** Bytes of the largest payload that a worker may send. */
  readonly largestPayload: number
  /** Decides whether a worker may join, and what it is told, perhaps later. Throws a `ConvoyError` to refuse it. */
  admit(hello: Hello): Welcome | Promise<Welcome>
  /** Hears of everything that is refused before there is a worker to name, and of connections that end by it. */
  refused?(code: ErrorCode): void
  /** Answers a plain HTTP request; undefined where there is nothing at that path. */
  page(path: string): Page | undefined | Promise<Page>
  /** The web page, where there is one. */
  readonly dashboard?: Site
}
