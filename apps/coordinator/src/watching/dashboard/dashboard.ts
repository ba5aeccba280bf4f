import type { LiveHistory, LiveMessage, LiveNote, LiveTest, PageMessage } from '@convoy/protocol'
import { createHash, timingSafeEqual } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import type { IncomingMessage, ServerResponse } from 'node:http'
import path from 'node:path'
import type { Duplex } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { WebSocketServer, type WebSocket } from 'ws'
import { z } from 'zod'
import { ConvoyError, type ErrorCode } from '@convoy/errors'
import type { Cluster } from '../../cluster/index.ts'
import type { RunEvent } from '../../events.ts'
import { dismiss, hangUp, HANDSHAKE, noWebSocket } from '../../server/index.ts'
import { Archive } from './archive.ts'
import { Assets, securityHeaders } from './assets.ts'
import { Curves } from './curves.ts'
import type { History } from './history.ts'
import { serveImage } from './images.ts'
import { Roster } from './roster.ts'

/** Milliseconds between two looks at whether something is to be told. */
const TICK = 1_000
/**
 * Seconds between two updates of the page where nothing but numbers changed: a tenth of the time that the coordinator runs,
 * within these. Each is a frame that a browser lays out and paints, perhaps on the training's own cores.
 */
const [OFTEN, SELDOM] = [2, 12]
/** Buckets of steps in an update at most. */
const BUCKETS = 8
/** Ticks between two points of the workers' speeds, and two pings. */
const SPEEDS_EVERY = 2
const PING_EVERY = 5
/** Pings without an answer after which a page is taken for gone. */
const UNANSWERED = 4
/** Pages at once. */
const MAX_PAGES = 64
/** Bytes that wait for a slow page before it misses updates. */
const BACKLOG = 1 << 20

const pageMessage = z.discriminatedUnion('kind', [
  z.object({ kind: z.literal('hello'), token: z.string().max(1_000).optional() }),
  z.object({
    kind: z.literal('history'),
    id: z.int(),
    run: z.string(),
    from: z.number().min(0),
    to: z.number().nullable(),
    points: z.int().min(10).max(4_000),
    whole: z.boolean(),
  }),
  z.object({ kind: z.literal('runs'), id: z.int() }),
])

export interface DashboardOptions {
  /** Name of the run, and the folder of all runs. */
  readonly run: string
  readonly runs: string
  readonly history: History
  readonly cluster: Cluster
  /** What a page must show; undefined where anyone on this machine may look. */
  readonly token: string | undefined
  /** Hears of every page that is refused. */
  refused(code: ErrorCode): void
}

const digest = (text: string) => createHash('sha256').update(text).digest()

/**
 * The web page and what it is told. HTTP serves its files and the newest weights, and decodes images for it; the WebSocket
 * `/live` brings history on request and an update every few seconds. Nothing is done for pages that are not there.
 */
export class Dashboard {
  readonly #options: DashboardOptions
  readonly #token: Buffer | undefined
  readonly #archive: Archive
  readonly #assets = new Assets(new URL('./dashboard/', import.meta.url))
  readonly #roster: Roster
  readonly #sockets = new WebSocketServer({
    noServer: true,
    maxPayload: 1 << 14,
    perMessageDeflate: false,
  })
  readonly #pages = new Map<WebSocket, { unanswered: number }>()
  readonly #ticker: NodeJS.Timeout
  #ticks = 0
  /** What happened since the last update. */
  #curves = new Curves()
  #tests: LiveTest[] = []
  #notes: LiveNote[] = []
  #told = ''
  #toldAt = 0
  readonly #since = performance.now()

  constructor(options: DashboardOptions) {
    this.#options = options
    this.#token = options.token === undefined ? undefined : digest(options.token)
    this.#archive = new Archive(options.runs)
    this.#roster = new Roster(options.cluster)
    this.#ticker = setInterval(() => this.#tick(), TICK)
    this.#ticker.unref()
  }

  /** Takes in an event of the run. */
  hear(event: RunEvent): void {
    const { history } = this.#options
    this.#roster.hear(event)
    const note = history.hear(event, Date.now())
    if (this.#pages.size === 0) return
    if (note) this.#notes.push(note)
    if (event.event === 'step') this.#curves.push(event.step, history.point!)
    if (event.event === 'test') this.#tests.push(history.tests.at(-1)!)
    // The last words, before the coordinator goes.
    if (event.event === 'done') this.#update()
  }

  /** Answers an HTTP request; false where the page has nothing at that path. */
  serve(request: IncomingMessage, response: ServerResponse): boolean {
    const url = parseUrl(request)
    if (!url) return false
    if (url.pathname === '/live') {
      // Asked for without a WebSocket: by a page whose WebSocket was refused, or by a proxy that made a plain request of it.
      const error = this.#refusal(request) ?? noWebSocket()
      response.writeHead(error.code === 'E_HTTP' ? 403 : 503, {
        ...securityHeaders,
        'content-type': 'application/json',
      })
      const { code, message, remedy } = error
      response.end(JSON.stringify({ code, message, remedy }))
      return true
    }
    if (request.method === 'POST' && url.pathname === '/image') {
      if (this.#may(request)) void serveImage(url, request, response)
      else refuse(response)
      return true
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') return false
    if (url.pathname === '/weights') {
      void this.#serveWeights(url.searchParams.get('run') ?? this.#options.run, request, response)
      return true
    }
    return this.#assets.serve(url.pathname, request, response)
  }

  /** Takes a page's WebSocket. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void {
    const refusal = this.#refusal(request)
    if (refusal) {
      this.#options.refused(refusal.code)
      return dismiss(socket, '403 Forbidden', refusal)
    }
    this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#greet(webSocket))
  }

  /** Says the last things and lets the pages go. */
  close(): void {
    clearInterval(this.#ticker)
    this.#update()
    for (const socket of this.#sockets.clients) {
      hangUp(socket, 1001)
    }
  }

  /** Why a page's WebSocket is not taken, if it is not. */
  #refusal(request: IncomingMessage): ConvoyError | undefined {
    if (!this.#ownPage(request)) {
      return new ConvoyError(
        'E_HTTP',
        'without a token, the page may only be opened at an address of this machine, such as http://localhost',
        'For a proxy or another name, start the coordinator with --token TEXT, which the page then asks for.',
      )
    }
    if (this.#sockets.clients.size < MAX_PAGES) return undefined
    return new ConvoyError('E_BUSY', `${MAX_PAGES} pages are open`, 'Close others.')
  }

  /**
   * Whether a request may come from our own page and no other: browsers let any page open a WebSocket anywhere. A token
   * tells our page from others, whatever a proxy made of the names. Without one, the page and the name that it was reached
   * by must be this machine's: a foreign name may be pointed at loopback.
   */
  #ownPage(request: IncomingMessage): boolean {
    if (this.#token !== undefined) return true
    const { host = '', origin } = request.headers
    if (origin !== undefined && origin.replace(/^https?:\/\//, '') !== host) return false
    return /^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$/.test(host)
  }

  #shows(token: string | undefined): boolean {
    if (!this.#token) return true
    // Digests have one length, so that the comparison takes one time.
    return token !== undefined && timingSafeEqual(digest(token), this.#token)
  }

  /** Whether a plain request comes from our own page and shows the token. */
  #may(request: IncomingMessage): boolean {
    const shown = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1]
    return this.#ownPage(request) && this.#shows(shown)
  }

  async #serveWeights(run: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const say = (status: number, text: string) => {
      response.writeHead(status, { ...securityHeaders, 'content-type': 'text/plain' })
      response.end(`${text}\n`)
    }
    try {
      if (!this.#may(request)) return refuse(response)
      const weights = await this.#archive.weights(run)
      if (!weights) return say(404, 'There is no checkpoint yet.')
      const { size } = await stat(weights.file)
      response.writeHead(200, {
        ...securityHeaders,
        'content-type': 'application/octet-stream',
        'content-length': size,
        'content-disposition': `attachment; filename="${run}-${path.basename(weights.file)}"`,
        'cache-control': 'no-store',
      })
      if (request.method === 'HEAD') response.end()
      else await pipeline(createReadStream(weights.file), response)
    } catch {
      // The file went, or the reader did.
      if (response.headersSent) response.destroy()
      else say(404, 'The checkpoint is gone; try again.')
    }
  }

  #greet(socket: WebSocket): void {
    const late = setTimeout(() => {
      this.#options.refused('E_HANDSHAKE')
      socket.terminate()
    }, HANDSHAKE)
    socket.on('error', () => socket.terminate())
    socket.on('close', () => {
      clearTimeout(late)
      this.#pages.delete(socket)
    })
    socket.on('pong', () => {
      const page = this.#pages.get(socket)
      if (page) page.unanswered = 0
    })
    socket.on('message', (data: Buffer) => {
      const message = readPageMessage(data)
      const known = this.#pages.has(socket)
      if (!message || known === (message.kind === 'hello')) {
        this.#options.refused('E_MESSAGE')
        return hangUp(socket, 1008)
      }
      if (message.kind === 'hello') {
        clearTimeout(late)
        this.#admit(socket, message.token)
      } else void this.#answer(socket, message)
    })
  }

  #admit(socket: WebSocket, token: string | undefined): void {
    if (!this.#shows(token)) {
      this.#options.refused('E_TOKEN')
      say(socket, {
        kind: 'token',
        reason: token === undefined ? 'The coordinator asks for its token.' : 'The token is wrong.',
      })
      return hangUp(socket, 1008)
    }
    this.#update()
    this.#pages.set(socket, { unanswered: 0 })
    say(socket, { kind: 'welcome', build: this.#assets.build, run: this.#options.run })
  }

  async #answer(socket: WebSocket, message: Exclude<PageMessage, { kind: 'hello' }>): Promise<void> {
    const { run } = this.#options
    try {
      if (message.kind === 'runs') {
        const runs = await this.#archive.list()
        for (const one of runs) one.current = one.name === run
        return say(socket, { kind: 'runs', id: message.id, runs })
      }
      const current = message.run === run
      const glance = current || message.whole ? undefined : await this.#archive.glance(message.run)
      const history = current ? this.#options.history : (glance ?? (await this.#archive.history(message.run)))
      if (!history) {
        return say(socket, { kind: 'missing', id: message.id, reason: `There is no run ${message.run}.` })
      }
      // What is in the history must not come a second time with the next update.
      if (current) this.#update()
      const answer: LiveHistory = {
        run: message.run,
        current,
        about: history.about ?? null,
        status: history.status(current ? this.#roster.bytes : { sent: 0, received: 0 }),
        rows: history.curves.rows(message.from, message.to ?? Infinity, Math.ceil(message.points / 2)),
        tests: history.tests,
        notes: history.lastNotes(),
        speeds: history.speeds,
        whole: !glance,
        workers: current ? this.#roster.workers() : [],
      }
      say(socket, { kind: 'history', id: message.id, history: answer })
    } catch (error) {
      say(socket, { kind: 'missing', id: message.id, reason: (error as Error).message })
    }
  }

  #tick(): void {
    const ticks = ++this.#ticks
    this.#roster.mark()
    if (ticks % SPEEDS_EVERY === 0) this.#options.history.hearSpeeds(this.#roster.workers())
    if (this.#pages.size === 0) return
    const now = performance.now()
    const pace = 1000 * Math.min(SELDOM, Math.max(OFTEN, (now - this.#since) / 10_000))
    // Half a tick: timers are not exact.
    if (this.#notes.length > 0 || now - this.#toldAt > pace - TICK / 2) this.#update()
    if (ticks % PING_EVERY === 0) {
      for (const [socket, page] of this.#pages) {
        if (++page.unanswered > UNANSWERED) socket.terminate()
        else socket.ping()
      }
    }
  }

  /** Sends what happened since the last update, if anything did. */
  #update(): void {
    if (this.#pages.size === 0) return
    const status = this.#options.history.status(this.#roster.bytes)
    const workers = this.#roster.workers()
    const told = JSON.stringify([status, workers])
    if (told === this.#told && this.#notes.length === 0) return
    this.#told = told
    this.#toldAt = performance.now()
    const message: LiveMessage = {
      kind: 'update',
      rows: this.#curves.rows(0, Infinity, BUCKETS),
      tests: this.#tests,
      notes: this.#notes,
      status,
      workers,
    }
    this.#curves = new Curves()
    this.#tests = []
    this.#notes = []
    this.#broadcast(JSON.stringify(message))
  }

  #broadcast(text: string): void {
    for (const socket of this.#pages.keys()) {
      if (socket.bufferedAmount < BACKLOG) socket.send(text)
    }
  }
}

function say(socket: WebSocket, message: LiveMessage): void {
  if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message))
}

function refuse(response: ServerResponse): void {
  response.writeHead(401, { ...securityHeaders, 'content-type': 'text/plain', connection: 'close' })
  response.end('The token is missing or wrong.\n')
}

function readPageMessage(data: Buffer): PageMessage | undefined {
  try {
    const parsed = pageMessage.safeParse(JSON.parse(data.toString('utf8')))
    return parsed.success ? (parsed.data as PageMessage) : undefined
  } catch {
    return undefined
  }
}

function parseUrl(request: IncomingMessage): URL | undefined {
  try {
    return new URL(request.url ?? '/', 'http://localhost')
  } catch {
    return undefined
  }
}
