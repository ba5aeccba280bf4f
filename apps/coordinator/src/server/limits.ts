import { ConvoyError } from '@convoy/errors'
import type { Duplex } from 'node:stream'
import type { WebSocket } from 'ws'

/** Time for a peer to finish TLS, then its HTTP request, and then to say hello, each in milliseconds. */
export const HANDSHAKE = 10_000
/** Connections at once. */
export const MAX_CONNECTIONS = 2_048
/**
 * Of these, connections that have not shown the token yet. For one more, the oldest is dropped: a worker shows it in its
 * first bytes, and whoever waits in silence must not keep others out. More than the 511 that the system queues, which
 * arrive in one turn of the event loop.
 */
export const MAX_PENDING = 1_024
/** Bytes of the headers of an HTTP request. */
export const MAX_HTTP_HEADERS = 8_192
/** Bytes that a peer may send before its hello was taken. */
export const MAX_BEFORE_HELLO = 16_384
/** Fragments of a message; a worker sends each message whole. */
export const MAX_FRAGMENTS = 16
/**
 * What a worker may send unasked: so many messages at once, and so many a second for ever. Answers are not counted, since
 * they are asked for; beside them a worker says hello, ready and leaving, and a pong every five seconds.
 */
export const UNASKED = { burst: 32, perSecond: 1 }

/** The chunks that a message of so many bytes may arrive in: the smallest packets of IPv4 carry 536 bytes. */
export function mostChunks(bytes: number): number {
  return 1_024 + Math.ceil(bytes / 512)
}

/** A token bucket. */
export class Budget {
  readonly #burst: number
  readonly #perSecond: number
  #left: number
  #at: number

  /** @param now In milliseconds, here and below. */
  constructor({ burst, perSecond }: { burst: number; perSecond: number }, now = performance.now()) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#left = burst
    this.#at = now
  }

  /** Takes one, or says that none is left. */
  take(now = performance.now()): boolean {
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#left < 1) return false
    this.#left--
    return true
  }

  /** Puts back one that should not have counted. */
  give(): void {
    this.#left++
  }
}

/** Answers an HTTP request that is refused and lets go of the connection, whether the peer does or not. */
export function dismiss(socket: Duplex, status: string, error: ConvoyError): void {
  const { code, message, remedy } = error
  const body = JSON.stringify({ code, message, remedy })
  // A peer may well be gone before it hears this; nobody else listens for that.
  socket.on('error', () => socket.destroy())
  socket.once('finish', () => socket.destroy())
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}

/** What a WebSocket's request is told that arrived as a plain one. */
export function noWebSocket(): ConvoyError {
  return new ConvoyError(
    'E_HTTP',
    'a proxy in between does not pass WebSockets on',
    'Have it pass on the headers Upgrade and Connection (nginx: proxy_http_version 1.1, proxy_set_header).',
  )
}

/** Closes a WebSocket, whether the peer answers or not. */
export function hangUp(socket: WebSocket, code: number): void {
  socket.close(code)
  setTimeout(() => socket.terminate(), 1_000).unref()
}
