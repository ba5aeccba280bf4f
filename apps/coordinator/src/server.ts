import { asConvoyError, ConvoyError } from '@convoy/errors'
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
import { createServer as createHttpServer, type IncomingMessage, type Server } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { isIPv6, type AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocketServer, type WebSocket } from 'ws'
import type { Cluster } from './cluster.ts'
import type { ServerConfig } from './config.ts'
import type { Dashboard } from './dashboard/dashboard.ts'
import { Member } from './member.ts'

/** Time for a peer to finish its HTTP request, and then to say hello, in milliseconds. */
const HANDSHAKE = 10_000
/** Connections at once. */
const MAX_CONNECTIONS = 2_048
/** Bytes that a message may have beyond its payload. */
const MARGIN = 1 << 16

/** The answer to a plain HTTP request. */
export interface Page {
  readonly status: number
  readonly type: string
  readonly body: string
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
  /** Answers a plain HTTP request; undefined where there is nothing at that path. */
  page(path: string): Page | undefined | Promise<Page>
  /** The web page, where there is one. */
  readonly dashboard?: Dashboard
}

/** Whether an address is reachable from this machine only. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\./.test(host)
}

/** The path that a request asks for; what is no address asks for nothing. */
function pathOf(request: IncomingMessage): string {
  return /^[^?#]*/.exec(request.url ?? '')![0]
}

const digest = (text: string) => createHash('sha256').update(text).digest()

/** The coordinator's door: HTTP for people and probes, WebSockets for workers. */
export class CoordinatorServer {
  readonly #config: ServerConfig
  readonly #hall: Hall
  readonly #http: Server
  readonly #sockets: WebSocketServer
  readonly #token: Buffer | undefined
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
    }
    this.#http = tls ? createHttpsServer({ ...tls, ...limits }) : createHttpServer(limits)
    this.#http.maxConnections = MAX_CONNECTIONS
    this.#sockets = new WebSocketServer({
      ...socketOptions,
      noServer: true,
      maxPayload: hall.largestPayload + MARGIN,
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
        this.#hall.dashboard.upgrade(request, socket, head)
        return
      }
      const refusal = this.#refusal(request)
      if (refusal) {
        // Before the upgrade nothing was allocated for this peer: this is all that it costs.
        socket.end(refusal)
        return
      }
      this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#greet(webSocket))
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

  /** The answer to an upgrade request that is refused, as bytes, or undefined where it may go on. */
  #refusal(request: IncomingMessage): string | undefined {
    if (this.#token) {
      const shown = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
      // Digests have one length, so that the comparison takes one time.
      if (shown === undefined || !timingSafeEqual(digest(shown), this.#token)) {
        return httpRefusal(
          '401 Unauthorized',
          new ConvoyError(
            'E_TOKEN',
            shown === undefined ? 'the coordinator asks for a token' : 'the token is wrong',
            "Give the coordinator's token with --token TEXT or CONVOY_TOKEN.",
          ),
        )
      }
    }
    return undefined
  }

  /** A new connection: it says hello in time, or goes. */
  #greet(socket: WebSocket): void {
    let member: Member | undefined
    const slow = setTimeout(() => socket.terminate(), HANDSHAKE)
    // Silence is watched by looking at a clock on each beat, so that a message costs no timer.
    let heard = performance.now()
    const watch = setInterval(() => {
      if (performance.now() - heard > SILENCE) socket.terminate()
    }, HEARTBEAT)
    watch.unref()
    socket.on('pong', () => {
      heard = performance.now()
    })
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      clearTimeout(slow)
      clearInterval(watch)
      if (member) this.#hall.cluster.leave(member, 'connection closed')
    })
    socket.on('message', (data, isBinary) => {
      heard = performance.now()
      try {
        if (!isBinary) throw new ConvoyError('E_MESSAGE', 'a text message', 'Convoy speaks binary frames.')
        const { message, payload } = readWorkerMessage(data as Buffer)
        if (!member) {
          clearTimeout(slow)
          member = this.#admit(socket, message)
        } else {
          member.tally.received += (data as Buffer).byteLength
          this.#hear(member, message, payload)
        }
      } catch (thrown) {
        const error = asConvoyError(thrown)
        if (member && error.code === 'E_FRAME') {
          // What it was, nobody can tell; the worker connects anew, and its work goes to others.
          this.#hall.cluster.leave(member, error.message)
          socket.terminate()
        } else if (member) this.#hall.cluster.refuse(member, error)
        else {
          clearTimeout(slow)
          farewell(socket, error)
        }
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

function say(socket: WebSocket, message: CoordinatorMessage): void {
  if (socket.readyState === socket.OPEN) socket.send(encodeFrame(message))
}

/** Refuses a worker in words and closes. */
function farewell(socket: WebSocket, error: ConvoyError): void {
  say(socket, { kind: 'goodbye', code: error.code, message: error.message, remedy: error.remedy })
  socket.close(1008)
  setTimeout(() => socket.terminate(), 1_000).unref()
}

function httpRefusal(status: string, error: ConvoyError): string {
  const body = JSON.stringify({ code: error.code, message: error.message, remedy: error.remedy })
  return `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`
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
