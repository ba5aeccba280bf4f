import { asConvoyError, ConvoyError, type ErrorCode } from '@convoy/errors'
import {
  HEARTBEAT,
  PROTOCOL_VERSION,
  readWorkerMessage,
  SILENCE,
  socketOptions,
  type MessageOf,
  encodeFrame,
  type CoordinatorMessage,
  type WorkerMessage,
} from '@convoy/protocol'
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
import { type Cluster, Member } from '../cluster/index.ts'
import type { ServerConfig } from '../config.ts'
import { SILENT } from '../events.ts'
import {
  Budget,
  dismiss,
  hangUp,
  HANDSHAKE,
  MAX_BEFORE_HELLO,
  MAX_CONNECTIONS,
  MAX_FRAGMENTS,
  MAX_HTTP_HEADERS,
  MAX_PENDING,
  mostChunks,
  UNASKED,
} from './limits.ts'

/** Bytes that a message may have beyond its payload. */
const MARGIN = 1 << 16

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

/** What the server needs to know of the run. */
export interface Hall {
  readonly cluster: Cluster
  /** Bytes of the largest payload that a worker may send. */
  readonly largestPayload: number
  /** Decides whether a worker may join, and what it is told. Throws a `ConvoyError` to refuse it. */
  admit(
    hello: MessageOf<WorkerMessage, 'hello'>,
  ): Omit<MessageOf<CoordinatorMessage, 'welcome'>, 'kind' | 'version' | 'name'>
  /** Hears of everything that is refused before there is a worker to name, and of connections that end by it. */
  refused?(code: ErrorCode): void
  /** Answers a plain HTTP request; undefined where there is nothing at that path. */
  page(path: string): Page | undefined | Promise<Page>
  /** The web page, where there is one. */
  readonly dashboard?: Site
}

/** Whether an address is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host)
}

/** The path that a request asks for; what is no address asks for nothing. */
function pathOf(request: IncomingMessage): string {
  return /^[^?#]*/.exec(request.url ?? '')![0]
}

/** Tells connections apart; the same for a TLS socket and the socket that carries it. */
const peerOf = (socket: Socket) => `${socket.remoteAddress} ${socket.remotePort}`

const digest = (text: string) => createHash('sha256').update(text).digest()

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
    this.#http.on('connection', (socket) => this.#arrive(socket))
    this.#http.on('drop', () => this.#refused('E_BUSY'))
    this.#http.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#garbled(error, socket))
    this.#http.on('tlsClientError', (error: NodeJS.ErrnoException) => this.#garbled(error))
    this.#sockets.on('wsClientError', (error, socket) => {
      this.#refuse(socket, '400 Bad Request', 'E_HTTP', error.message)
    })
    this.#http.on('request', (request, response) => {
      if (this.#hall.dashboard?.serve(request, response)) return
      void Promise.resolve(this.#hall.page(pathOf(request))).then((page) => {
        response.writeHead(page?.status ?? 404, { 'content-type': page?.type ?? 'text/plain' })
        response.end(page?.body ?? 'There is nothing here.\n')
      })
    })
    this.#http.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
      if (pathOf(request) === '/live' && this.#hall.dashboard) {
        this.#pending.delete(peerOf(request.socket))
        this.#hall.dashboard.upgrade(request, socket, head)
        return
      }
      const refusal = this.#tokenRefusal(request)
      // Before the upgrade nothing was allocated for this peer: this is all that it costs.
      if (refusal !== undefined) return this.#refuse(socket, '401 Unauthorized', 'E_TOKEN', refusal)
      this.#pending.delete(peerOf(request.socket))
      this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#greet(webSocket, socket))
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

  /** Tells every worker that the run is over, or when to come back, and stops listening. */
  async close(message: string, retryAfter?: number): Promise<void> {
    clearInterval(this.#heartbeat)
    this.#hall.dashboard?.close()
    const when = retryAfter === undefined ? {} : { retryAfter }
    for (const socket of this.#sockets.clients) {
      say(socket, { kind: 'goodbye', code: 'OK', message, remedy: '', ...when })
      socket.close(1000)
    }
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

  /** A new connection that may be a worker's: it says hello in time, or goes. */
  #greet(socket: WebSocket, line: Duplex): void {
    let member: Member | undefined
    let over = false
    const slow = setTimeout(() => {
      this.#refused('E_HANDSHAKE')
      socket.terminate()
    }, HANDSHAKE)
    // Until it said who it is, it may not send what is as large as a gradient.
    let early = 0
    const weigh = (chunk: Buffer) => {
      early += chunk.byteLength
      if (early <= MAX_BEFORE_HELLO) return
      this.#refused('E_TOO_LARGE')
      socket.terminate()
    }
    line.on('data', weigh)
    const known = () => {
      clearTimeout(slow)
      line.off('data', weigh)
    }
    /** Ends the connection in words; what still comes is not read. */
    const end = (error: ConvoyError) => {
      over = true
      known()
      this.#refused(error.code)
      if (member) this.#hall.cluster.leave(member, error.message)
      farewell(socket, error)
    }
    const budget = new Budget(UNASKED)
    /** Counts a message that nobody asked for; one too many ends the connection. */
    const spend = (): boolean => {
      if (over) socket.terminate()
      else if (budget.take()) return true
      else {
        end(
          new ConvoyError(
            'E_RATE',
            'more messages than were asked for',
            'Use the same version of Convoy on both sides.',
          ),
        )
      }
      return false
    }
    // Silence is watched by looking at a clock on each beat, so that a message costs no timer.
    let heard = performance.now()
    const watch = setInterval(() => {
      if (performance.now() - heard <= SILENCE) return
      if (member) this.#hall.cluster.leave(member, SILENT)
      socket.terminate()
    }, HEARTBEAT)
    watch.unref()
    socket.on('ping', spend)
    socket.on('pong', () => {
      if (spend()) heard = performance.now()
    })
    socket.on('error', ({ code = '' }: NodeJS.ErrnoException) => {
      if (!over && code.startsWith('WS_ERR_')) this.#refused(oversize.has(code) ? 'E_TOO_LARGE' : 'E_FRAME')
      socket.terminate()
    })
    socket.on('close', () => {
      known()
      clearInterval(watch)
      if (member) this.#hall.cluster.leave(member, 'connection closed')
    })
    socket.on('message', (data, isBinary) => {
      if (!spend()) return
      heard = performance.now()
      try {
        if (!isBinary) throw new ConvoyError('E_MESSAGE', 'a text message', 'Convoy speaks binary frames.')
        const { message, payload } = readWorkerMessage(data as Buffer)
        if (!member) {
          member = this.#admit(socket, message)
          known()
        } else {
          member.tally.received += (data as Buffer).byteLength
          if ('id' in message && member.awaits(message.id)) budget.give()
          this.#hear(member, message, payload)
        }
      } catch (thrown) {
        const error = asConvoyError(thrown)
        if (!member) end(error)
        else if (error.code === 'E_FRAME') {
          // What it was, nobody can tell; the worker connects anew, and its work goes to others.
          this.#refused(error.code)
          this.#hall.cluster.leave(member, error.message)
          socket.terminate()
        } else this.#hall.cluster.refuse(member, error)
      }
    })
  }

  #admit(socket: WebSocket, message: WorkerMessage): Member {
    if (message.kind !== 'hello') {
      throw new ConvoyError('E_MESSAGE', `${message.kind} before hello`, 'Say hello first.')
    }
    const welcome = this.#hall.admit(message)
    const { cluster } = this.#hall
    const { name, pace, tally } = cluster.nameFor(message.name, message.instance)
    const member = new Member(message, name, socket, !welcome.samples, pace, tally)
    cluster.join(member)
    member.send({ kind: 'welcome', version: PROTOCOL_VERSION, name, ...welcome })
    return member
  }

  #hear(member: Member, message: WorkerMessage, payload: Uint8Array): void {
    const { cluster } = this.#hall
    switch (message.kind) {
      case 'ready':
        return cluster.ready(member)
      case 'gradient':
      case 'evaluation':
        return cluster.answer(member, message, payload)
      case 'leaving':
        return cluster.leaving(member, message.finishing)
      case 'failed':
        return cluster.failed(member, message)
      case 'hello':
        throw new ConvoyError('E_MESSAGE', 'a second hello', 'Say hello once.')
      default:
        message satisfies never
    }
  }
}

/** What ws says of messages that are too long, or come in too many parts. */
const oversize = new Set([
  'WS_ERR_UNSUPPORTED_MESSAGE_LENGTH',
  'WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH',
  'WS_ERR_TOO_MANY_BUFFERED_PARTS',
])

function say(socket: WebSocket, message: CoordinatorMessage): void {
  if (socket.readyState === socket.OPEN) socket.send(encodeFrame(message))
}

/** Refuses a worker in words and closes. */
function farewell(socket: WebSocket, error: ConvoyError): void {
  say(socket, { kind: 'goodbye', code: error.code, message: error.message, remedy: error.remedy })
  hangUp(socket, 1008)
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
