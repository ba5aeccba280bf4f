import { proxyAgent, proxyFor, withoutCredentials } from '@convoy/download'
import { asConvoyError, ConvoyError, isErrorCode } from '@convoy/errors'
import {
  encodeFrame,
  HEARTBEAT,
  noMask,
  PROTOCOL_VERSION,
  readCoordinatorMessage,
  SILENCE,
  socketOptions,
  TRAILER,
  type Computer,
  type CoordinatorMessage,
  type MessageOf,
  type Outcome,
  type WorkerMessage,
} from '@convoy/protocol'
import { parameterLayout } from '@convoy/model'
import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Agent, IncomingMessage } from 'node:http'
import { availableParallelism, hostname } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import type { ConnectionConfig } from './config.ts'
import { Passage } from './passage.ts'

/** The longest pause between attempts to reach the coordinator, in milliseconds. */
const LONGEST_PAUSE = 5_000
/** The largest frame that is taken from a coordinator, in bytes. */
const LARGEST_FRAME = 1 << 29

type EngineOutcome = Extract<Outcome, { kind: 'engine' }>

/** Tells a person what the worker is doing. */
export type WorkerLog = (text: string) => void

/**
 * A worker's connection to its coordinator; what computes is another's: a thread with an engine, or the workers below a relay.
 * It looks for its coordinator again whenever the connection is lost.
 */
export class Worker {
  readonly #config: ConnectionConfig
  readonly #log: WorkerLog
  readonly #computer: Computer
  readonly #instance = randomBytes(16).toString('hex')
  /** Of the proxy that the coordinator is reached through. */
  #agent: Agent | undefined
  readonly #tls: { ca: Buffer } | undefined
  #name: string
  #socket: WebSocket | undefined
  #engine: EngineOutcome | undefined
  #joined = false
  #wasJoined = false
  #draining = false
  /** Ends a pause between attempts to connect. */
  readonly #leaving = new AbortController()
  readonly #passage = new Passage()
  #drained: (() => void) | undefined
  #fatal: ConvoyError | undefined

  /**
   * @param open Opens what computes.
   * Throws E_USAGE where the address or the TLS file is not usable; then nothing was opened.
   */
  constructor(config: ConnectionConfig, open: () => Computer, log: WorkerLog) {
    checkAddress(config.coordinator)
    this.#config = config
    this.#log = log
    this.#name = config.workerName ?? `${hostname()}-${process.pid}`
    this.#tls = readCertificate(config.tlsCa)
    this.#computer = open()
    this.#computer.hear = (outcome) => this.#compute(outcome)
  }

  /** Works until the coordinator says goodbye, `stop` is called, or nothing can be done any more (then it throws). */
  async run(): Promise<void> {
    const { coordinator } = this.#config
    const proxy = proxyFor(coordinator, process.env)
    if (proxy !== undefined) {
      this.#log(`through the proxy ${withoutCredentials(proxy)}; names in NO_PROXY are reached without it`)
      this.#agent = await proxyAgent(coordinator, process.env)
    }
    let pause = 100
    let lost = performance.now()
    for (;;) {
      const { connected, goodbye } = await this.#connection()
      if (this.#fatal) throw this.#fatal
      if (this.#draining) return
      if (goodbye?.code === 'OK') this.#log(goodbye.message)
      if (goodbye?.code === 'OK' && goodbye.retryAfter === undefined) return
      if (goodbye && goodbye.retryAfter === undefined) {
        const code = isErrorCode(goodbye.code) ? goodbye.code : 'E_MESSAGE'
        throw new ConvoyError(code, goodbye.message, goodbye.remedy)
      }
      const now = performance.now()
      // A connection that breaks again and again at the same place is as good as none.
      if (connected && !this.#passage.blocked) {
        lost = now
        pause = 100
      }
      if (connected && !goodbye) {
        this.#log('connection lost; looking for the coordinator again')
        if (this.#passage.blocked) this.#log(this.#passage.error().toText())
      }
      const { giveUpAfter } = this.#config
      if (giveUpAfter > 0 && now - lost > 1000 * giveUpAfter) {
        if (this.#passage.blocked) throw this.#passage.error()
        throw new ConvoyError(
          'E_UNREACHABLE',
          `no coordinator answered at ${coordinator} for ${giveUpAfter} s`,
          'Start one with `convoy coordinator`, or give its address with --coordinator URL.',
        )
      }
      // Jitter keeps a thousand workers from knocking at once when a coordinator comes back.
      const rest = goodbye?.retryAfter ? 1000 * goodbye.retryAfter : pause * (0.5 + Math.random())
      await sleep(rest, undefined, { signal: this.#leaving.signal }).catch(() => {})
      pause = Math.min(LONGEST_PAUSE, 2 * pause)
      if (this.#draining) return
    }
  }

  /**
   * Leaves: finishes the request at hand if the grace period allows, hands the others back, and closes. Only the compute
   * thread knows which one it is at, so it is asked first: what is handed back was not begun, and is computed once.
   */
  async stop(): Promise<void> {
    if (this.#draining) return
    this.#draining = true
    this.#leaving.abort()
    const started = performance.now()
    if (this.#socket?.readyState === WebSocket.OPEN) {
      const drained = new Promise<void>((resolve) => (this.#drained = resolve))
      this.#computer.order({ kind: 'drain' })
      const { grace } = this.#config
      const late = sleep(1000 * grace, 'late' as const, { ref: false })
      if ((await Promise.race([drained, late])) === 'late')
        this.#log(`the work at hand was not finished within ${grace} s; others do it`)
    }
    const socket = this.#socket
    this.#socket = undefined
    socket?.close(1000)
    // A coordinator that is cut off or stands still does not answer; a slow one is still being sent the last gradient.
    const left = 1000 * this.#config.grace - (performance.now() - started)
    setTimeout(() => socket?.terminate(), Math.max(1_000, left)).unref()
  }

  /** Whether the worker is connected and was let in. */
  get joined(): boolean {
    return this.#joined
  }

  /** Whether it was let in at any time. */
  get wasJoined(): boolean {
    return this.#wasJoined
  }

  /** Ends the connection, and what computes. */
  async dispose(): Promise<void> {
    this.#socket?.terminate()
    await this.#computer.dispose()
  }

  /** One connection, from opening to its end. */
  #connection(): Promise<{ connected: boolean; goodbye?: MessageOf<CoordinatorMessage, 'goodbye'> }> {
    return new Promise((resolve) => {
      let connected = false
      let goodbye: MessageOf<CoordinatorMessage, 'goodbye'> | undefined
      const { coordinator, token } = this.#config
      const socket = new WebSocket(coordinator, {
        ...socketOptions,
        ...this.#tls,
        maxPayload: LARGEST_FRAME,
        generateMask: noMask,
        handshakeTimeout: 10_000,
        // A proxy sends /convoy on to /convoy/; ws shows no other host the token.
        followRedirects: true,
        agent: this.#agent,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
      })
      this.#socket = socket
      let heard = performance.now()
      const watch = setInterval(() => {
        if (!connected || performance.now() - heard <= SILENCE) return
        this.#log(`the coordinator was silent for ${SILENCE / 1000} s`)
        socket.terminate()
      }, HEARTBEAT)
      socket.on('open', () => {
        connected = true
        heard = performance.now()
        this.#greet()
      })
      socket.on('ping', () => {
        heard = performance.now()
      })
      socket.on('unexpected-response', (_request, response) => {
        void readRefusal(response, coordinator).then((refusal) => {
          if (refusal) this.#fail(refusal)
          socket.terminate()
        })
      })
      socket.on('message', (data) => {
        heard = performance.now()
        try {
          const { message, payload } = readCoordinatorMessage(data as Buffer)
          if (message.kind === 'goodbye') goodbye = message
          else this.#hear(message, payload)
        } catch (thrown) {
          const error = asConvoyError(thrown)
          // What was damaged on its way is sent again on a new connection; anything else is beyond this worker.
          if (error.code === 'E_FRAME') this.#log(error.message)
          else this.#fail(error)
          socket.terminate()
        }
      })
      // What went wrong is told by whether it ever connected; `close` follows every error.
      socket.on('error', () => {})
      socket.on('close', (code) => {
        clearInterval(watch)
        if (this.#joined && !goodbye) this.#broke(code)
        this.#joined = false
        this.#computer.order({ kind: 'forget' })
        this.#drained?.()
        resolve(goodbye ? { connected, goodbye } : { connected })
      })
    })
  }

  #broke(code: number): void {
    try {
      this.#passage.broke(code)
    } catch (error) {
      this.#fail(asConvoyError(error))
    }
  }

  #greet(): void {
    // The engine may still be loading; its outcome greets then.
    if (!this.#engine || this.#socket?.readyState !== WebSocket.OPEN) return
    const { description, numerics, fingerprint, relay } = this.#engine
    this.#say({
      kind: 'hello',
      version: PROTOCOL_VERSION,
      name: this.#name,
      instance: this.#instance,
      engine: description,
      numerics,
      cores: availableParallelism(),
      ...(fingerprint === undefined ? {} : { fingerprint }),
      ...(relay ? { relay } : {}),
    })
  }

  #hear(message: Exclude<CoordinatorMessage, { kind: 'goodbye' }>, payload: Uint8Array): void {
    switch (message.kind) {
      case 'welcome':
        if (message.name !== this.#name) this.#log(`the coordinator calls this worker ${message.name}`)
        this.#name = message.name
        this.#joined = true
        this.#wasJoined = true
        this.#passage.joined((message.down === 'bf16' ? 2 : 4) * parameterLayout(message.model).size)
        this.#log(`joined run ${message.run} at ${this.#config.coordinator} as ${message.name}`)
        return this.#computer.order({ kind: 'compile', welcome: message })
      case 'parameters':
        this.#passage.heard()
        return this.#computer.order({
          ...{ kind: 'parameters', step: message.step, ahead: message.ahead, payload: owned(payload) },
        })
      case 'parametersTail':
        this.#passage.heard()
        return this.#computer.order({ ...message, payload: owned(payload) })
      case 'work':
        if (this.#draining) return
        return this.#computer.order({ kind: 'work', work: message, payload: owned(payload) })
      case 'cancel':
        return this.#computer.order({ kind: 'cancel', id: message.id })
      case 'refused':
        this.#log(`an answer was refused: ${message.code}: ${message.message}`)
        return this.#computer.order({ kind: 'refused', code: message.code })
      default:
        message satisfies never
    }
  }

  #compute(outcome: Outcome): void {
    switch (outcome.kind) {
      case 'engine':
        this.#engine = outcome
        this.#log(`computing with ${outcome.description}`)
        return this.#greet()
      case 'compiled':
        return this.#draining ? undefined : this.#say({ kind: 'ready' })
      case 'draining': {
        const { finishing } = outcome
        return this.#say({ kind: 'leaving', ...(finishing === undefined ? {} : { finishing }) })
      }
      case 'frame': {
        const { frame, length, reusable } = outcome
        const back = () => {
          if (reusable) this.#computer.order({ kind: 'reuse', frame })
        }
        if (this.#socket?.readyState !== WebSocket.OPEN) return back()
        this.#passage.sent(length)
        return this.#socket.send(new Uint8Array(frame, 0, length), back)
      }
      case 'failed': {
        const { id, step, lo, hi } = outcome.work
        return this.#say({ kind: 'failed', id, step, lo, hi, why: outcome.why.slice(0, 2_000) })
      }
      case 'dishonest':
        return this.#say(outcome)
      case 'drained':
        return this.#drained?.()
      case 'error':
        return this.#fail(
          new ConvoyError(outcome.code, outcome.message, outcome.remedy, { cause: outcome.stack }),
        )
      default:
        outcome satisfies never
    }
  }

  #say(message: WorkerMessage): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(encodeFrame(message))
  }

  #fail(error: ConvoyError): void {
    this.#fatal ??= error
    this.#socket?.terminate()
  }
}

/**
 * The payload in a buffer that can be given away. A socket reads at most 64 KiB at a time, so only a larger message is
 * sure to have an allocation of its own; a smaller one may share it with the start of the next.
 */
function owned(payload: Uint8Array): Uint8Array {
  const whole = payload.buffer.byteLength === payload.byteOffset + payload.byteLength + TRAILER
  return whole && payload.byteLength > 1 << 17 ? payload : payload.slice()
}

function checkAddress(address: string): void {
  let protocol
  try {
    protocol = new URL(address).protocol
  } catch {
    protocol = undefined
  }
  if (protocol !== 'ws:' && protocol !== 'wss:') {
    throw new ConvoyError(
      'E_USAGE',
      `${address} is not the address of a coordinator`,
      'Give --coordinator ws://HOST:PORT, or wss:// with TLS.',
    )
  }
}

function readCertificate(file: string | undefined): { ca: Buffer } | undefined {
  if (file === undefined) return undefined
  try {
    return { ca: readFileSync(file) }
  } catch (error) {
    throw new ConvoyError('E_USAGE', `cannot read ${file}: ${(error as Error).message}`, 'Check --tls-ca.')
  }
}

/** The coordinator's reason for not letting this worker in, from its HTTP answer; undefined where trying again helps. */
async function readRefusal(response: IncomingMessage, address: string): Promise<ConvoyError | undefined> {
  let body = ''
  for await (const chunk of response) {
    body += String(chunk)
    if (body.length > 10_000) break
  }
  try {
    const { code, message, remedy } = JSON.parse(body) as Record<string, unknown>
    if (isErrorCode(code)) return new ConvoyError(code, String(message), String(remedy))
  } catch {
    // Not from a coordinator.
  }
  if ((response.statusCode ?? 0) >= 500) return undefined
  return new ConvoyError(
    'E_UNREACHABLE',
    `what listens at ${address} is not a Convoy coordinator (HTTP ${response.statusCode})`,
    'Check --coordinator URL.',
  )
}
