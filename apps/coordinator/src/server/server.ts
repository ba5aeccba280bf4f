import { ConvoyError, type ErrorCode } from '@convoy/errors'
import { HEARTBEAT, socketOptions } from '@convoy/protocol'
import { createHash, timingSafeEqual } from 'node:crypto'
import { readFileSync } from 'node:fs'
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { isIPv6, type AddressInfo, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocketServer, type WebSocket } from 'ws'
import type { ServerConfig } from '../config.ts'
import { Connection, say } from './connection.ts'
import type { Hall } from './hall.ts'
import {
  dismiss,
  HANDSHAKE,
  MAX_CONNECTIONS,
  MAX_FRAGMENTS,
  MAX_HTTP_HEADERS,
  MAX_PENDING,
  mostChunks,
  noWebSocket,
} from './limits.ts'

/** Bytes that a message may have beyond its payload. */
const MARGIN = 1 << 16

/** Whether an address is reachable from this machine only. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host)
}

/** The path that a request asks for; what is no address asks for nothing. */
function pathOf(request: IncomingMessage): string {
  return /^[^?#]*/.exec(request.url ?? '')![0]
}

/** Tells connections apart; the same for a TLS socket and the socket that carries it. */
const peerOf = (socket: Socket) => `${socket.remoteAddress} ${socket.remotePort}`

const digest = (text: string) => createHash('sha256').update(text).digest()

/** Ends a worker's connection; with `retryAfter`, in seconds, it looks for a coordinator again. */
function sendHome(socket: WebSocket, message: string, retryAfter?: number): void {
  const when = retryAfter === undefined ? {} : { retryAfter }
  say(socket, { kind: 'goodbye', code: 'OK', message, remedy: '', ...when })
  socket.close(1000)
}

/** The coordinator's door: HTTP for people and probes, WebSockets for workers. */
export class CoordinatorServer {
  readonly #config: ServerConfig
  readonly #hall: Hall
  readonly #http: Server
  readonly #sockets: WebSocketServer
  readonly #token: Buffer | undefined
  /** Connections that have not shown the token yet, oldest first. */
  readonly #pending = new Map<string, Socket>()
  #heartbeat: NodeJS.Timeout | undefined
  /** What workers are told that come when the run is over. */
  #over: string | undefined

  /** Throws E_TOKEN_REQUIRED, or E_USAGE where the TLS files cannot be read. */
  constructor(config: ServerConfig, hall: Hall) {
    this.#config = config
    this.#hall = hall
    if (!isLoopback(config.host) && !config.token) {
      throw new ConvoyError(
        'E_TOKEN_REQUIRED',
        `listening on ${config.host} without a token would let anyone in`,
        'Give --token TEXT (or CONVOY_TOKEN) to coordinator and workers, or listen on 127.0.0.1.',
      )
    }
    this.#token = config.token === undefined ? undefined : digest(config.token)
    const tls = readTls(config)
    const limits = {
      requestTimeout: HANDSHAKE,
      headersTimeout: HANDSHAKE,
      connectionsCheckingInterval: 2_000,
      maxHeaderSize: MAX_HTTP_HEADERS,
    }
    this.#http = tls
      ? createHttpsServer({ ...tls, ...limits, handshakeTimeout: HANDSHAKE })
      : createHttpServer(limits)
    this.#http.maxConnections = MAX_CONNECTIONS
    const maxPayload = hall.largestPayload + MARGIN
    this.#sockets = new WebSocketServer({
      ...socketOptions,
      noServer: true,
      maxPayload,
      maxFragments: MAX_FRAGMENTS,
      maxBufferedChunks: mostChunks(maxPayload),
    })
    this.#wire()
  }

  /** Says who answers what comes. */
  #wire(): void {
    this.#http.on('connection', (socket) => this.#arrive(socket))
    this.#http.on('drop', () => this.#refused('E_BUSY'))
    this.#http.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#garbled(error, socket))
    this.#http.on('tlsClientError', (error: NodeJS.ErrnoException) => this.#garbled(error))
    this.#sockets.on('wsClientError', (error, socket) => {
      this.#refuse(socket, '400 Bad Request', 'E_HTTP', error.message)
    })
    this.#http.on('request', (request, response) => {
      if (this.#withoutUpgrade(request, response) || this.#hall.dashboard?.serve(request, response)) return
      void Promise.resolve(this.#hall.page(pathOf(request))).then((page) => {
        response.writeHead(page?.status ?? 404, { 'content-type': page?.type ?? 'text/plain' })
        response.end(page?.body ?? 'There is nothing here.\n')
      })
    })
    this.#http.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) =>
      this.#upgrade(request, socket, head),
    )
  }

  /** Answers a WebSocket's request that a proxy made a plain one of; false where it is none. */
  #withoutUpgrade({ headers }: IncomingMessage, response: ServerResponse): boolean {
    if (headers['sec-websocket-key'] === undefined) return false
    this.#refused('E_HTTP')
    const { code, message, remedy } = noWebSocket()
    response.writeHead(426, { 'content-type': 'application/json', upgrade: 'websocket', connection: 'close' })
    response.end(JSON.stringify({ code, message, remedy }))
    return true
  }

  /** Makes a WebSocket of a request: a page's, or a worker's that shows the token. */
  #upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const { dashboard } = this.#hall
    if (pathOf(request) === '/live' && dashboard) {
      this.#pending.delete(peerOf(request.socket))
      dashboard.upgrade(request, socket, head)
      return
    }
    const refusal = this.#tokenRefusal(request)
    // Before the upgrade nothing was allocated for this peer: this is all that it costs.
    if (refusal !== undefined) return this.#refuse(socket, '401 Unauthorized', 'E_TOKEN', refusal)
    this.#pending.delete(peerOf(request.socket))
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => {
      if (this.#over === undefined) new Connection(this.#hall, webSocket, socket)
      else sendHome(webSocket, this.#over)
    })
  }

  /** Starts to listen; resolves with the address. Throws E_PORT_IN_USE. */
  async listen(): Promise<string> {
    const { host, port } = this.#config
    await new Promise<void>((resolve, reject) => {
      this.#http.once('error', (error: NodeJS.ErrnoException) => {
        reject(
          error.code === 'EADDRINUSE'
            ? new ConvoyError(
                'E_PORT_IN_USE',
                `port ${port} of ${host} is taken`,
                'Choose another with --port N, or --port 0 for any free one.',
              )
            : new ConvoyError(
                'E_USAGE',
                `cannot listen on ${host}:${port}: ${error.message}`,
                'Choose another --host or --port.',
              ),
        )
      })
      this.#http.listen(port, host, resolve)
    })
    this.#heartbeat = setInterval(() => {
      for (const socket of this.#sockets.clients) socket.ping()
    }, HEARTBEAT)
    this.#heartbeat.unref()
    const address = this.#http.address() as AddressInfo
    const shown = isIPv6(host) ? `[${host}]` : host
    return `${this.#config.tlsCert ? 'wss' : 'ws'}://${shown}:${address.port}`
  }

  /** Tells every worker, also those that still come, that the run is over. Pages and probes are answered as before. */
  dismiss(message: string): void {
    this.#over = message
    for (const socket of this.#sockets.clients) sendHome(socket, message)
  }

  /** Tells every worker that the run is over, or when to come back, and stops listening. */
  async close(message: string, retryAfter?: number): Promise<void> {
    clearInterval(this.#heartbeat)
    this.#hall.dashboard?.close()
    for (const socket of this.#sockets.clients) sendHome(socket, message, retryAfter)
    const closed = new Promise<void>((resolve) => this.#http.close(() => resolve()))
    setTimeout(() => {
      for (const socket of this.#sockets.clients) socket.terminate()
      this.#http.closeAllConnections()
    }, 1_000).unref()
    await closed
  }

  #refused(code: ErrorCode): void {
    this.#hall.refused?.(code)
  }

  /** Refuses an HTTP request. */
  #refuse(socket: Duplex, status: string, code: ErrorCode, message: string): void {
    this.#refused(code)
    const remedy =
      code === 'E_TOKEN'
        ? "Give the coordinator's token with --token TEXT or CONVOY_TOKEN."
        : 'Connect with the same version of Convoy, or with a browser.'
    dismiss(socket, status, new ConvoyError(code, message, remedy))
  }

  /** A new connection of which nothing is known yet. */
  #arrive(socket: Socket): void {
    const peer = peerOf(socket)
    if (this.#pending.size >= MAX_PENDING) {
      const [oldest, dropped] = this.#pending.entries().next().value!
      this.#pending.delete(oldest)
      dropped.destroy()
      this.#refused('E_BUSY')
    }
    this.#pending.set(peer, socket)
    socket.once('close', () => {
      if (this.#pending.get(peer) === socket) this.#pending.delete(peer)
    })
  }

  /** A connection whose HTTP or TLS is wrong, too much, or too slow. */
  #garbled({ code = '' }: NodeJS.ErrnoException, socket?: Duplex): void {
    if (code === 'ERR_HTTP_REQUEST_TIMEOUT' || code === 'ERR_TLS_HANDSHAKE_TIMEOUT') {
      this.#refused('E_HANDSHAKE')
      socket?.destroy()
    } else if (code === 'HPE_HEADER_OVERFLOW' && socket?.writable) {
      this.#refuse(socket, '431 Request Header Fields Too Large', 'E_TOO_LARGE', 'the headers are too long')
    } else if (code.startsWith('HPE_') && socket?.writable) {
      this.#refuse(socket, '400 Bad Request', 'E_HTTP', 'this is not HTTP')
    } else {
      if (!code.startsWith('ECONN') && code !== 'EPIPE') this.#refused('E_HTTP')
      socket?.destroy()
    }
  }

  /** Why an upgrade request is refused, or undefined where it may go on. */
  #tokenRefusal(request: IncomingMessage): string | undefined {
    if (!this.#token) return undefined
    const shown = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    if (shown === undefined) return 'the coordinator asks for a token'
    // Digests have one length, so that the comparison takes one time.
    return timingSafeEqual(digest(shown), this.#token) ? undefined : 'the token is wrong'
  }
}

function readTls(config: ServerConfig): { cert: Buffer; key: Buffer } | undefined {
  if (!config.tlsCert && !config.tlsKey) return undefined
  if (!config.tlsCert || !config.tlsKey) {
    throw new ConvoyError(
      'E_USAGE',
      'TLS needs both a certificate and its key',
      'Give --tls-cert and --tls-key.',
    )
  }
  try {
    return { cert: readFileSync(config.tlsCert), key: readFileSync(config.tlsKey) }
  } catch (error) {
    throw new ConvoyError(
      'E_USAGE',
      `cannot read the TLS files: ${(error as Error).message}`,
      'Check the paths.',
    )
  }
}
