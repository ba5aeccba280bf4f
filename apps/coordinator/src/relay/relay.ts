import { Arena } from '@convoy/arena'
import type { Dataset } from '@convoy/data'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import { trainedLayout } from '@convoy/model'
import {
  encodeFrame,
  SumFrames,
  type Computer,
  type CoordinatorMessage,
  type MessageOf,
  type Order,
  type Outcome,
} from '@convoy/protocol'
import { once } from 'node:events'
import { Cluster, type SentParameters } from '../cluster/index.ts'
import type { ServerConfig } from '../config.ts'
import type { Report } from '../events.ts'
import { numericsText, type NumericsClass } from '../numerics.ts'
import { CoordinatorServer, type Hello, type Page, type Welcome } from '../server/index.ts'
import { Samples } from '../training/index.ts'
import { Metrics, QuietLog } from '../watching/index.ts'
import { RelayJob } from './job.ts'
import { AskedNode, type AskedWork, type Site } from './request.ts'

/** The largest payload that a worker may send, in bytes: of which run it is, is not known when it connects. */
const LARGEST_PAYLOAD = 1 << 29
/** How long workers wait before they look for a relay again, in seconds. */
const RETURN = 1

/**
 * Computes for a worker's connection to a coordinator above by being a coordinator to workers below. It adds their sums by the same tree, so what goes
 * up are the bits that one worker would give.
 *
 * All workers below are of one numerics class, the first one's, which is the relay's to the coordinator above.
 */
export class Relay implements Computer {
  hear: (outcome: Outcome) => void = () => {}
  readonly #dataset: Dataset | undefined
  readonly #cluster: Cluster
  readonly #server: CoordinatorServer
  #numerics: NumericsClass | undefined
  /** The run, once the coordinator above has told it. */
  #site: Site | undefined
  /** Continues those that wait for a worker, and workers that wait for the run. */
  #waiting: (() => void)[] = []
  #parameters: (SentParameters & { readonly step: number }) | undefined
  #versions = 0
  #job: RelayJob | undefined
  #answeredAt = -Infinity
  /** Share of the gradients that a second worker below repeats. */
  #verified = 0
  /** Whether there is a worker, so that the coordinator above may give work. */
  #useful = false
  #closed = false

  /**
   * @param listen Hears what happens with workers.
   * @param dataset The relay's own, which spares sending images to it.
   * Throws E_TOKEN_REQUIRED or E_USAGE, as a coordinator does.
   */
  constructor(options: ServerConfig, listen: Report, dataset?: Dataset) {
    const quiet = new QuietLog(listen)
    const cluster = new Cluster((event) => {
      metrics.hear(event)
      quiet.hear(event)
    })
    const metrics = new Metrics({ cluster, workersWanted: () => undefined })
    this.#dataset = dataset
    this.#cluster = cluster
    cluster.onChange = () => this.#look()
    cluster.onDishonest = (since, found) => {
      this.hear({ kind: 'dishonest', ...found, since })
      this.#restart()
    }
    cluster.onNotFinite = ({ lo, hi }) => this.#notFinite(lo, hi)
    this.#server = new CoordinatorServer(options, {
      cluster,
      largestPayload: LARGEST_PAYLOAD,
      refused: (code) => metrics.refused(code),
      admit: (hello) => this.#admit(hello),
      page: (route) => this.#page(route, metrics),
    })
  }

  /** Starts to listen for workers; resolves with the address. Throws E_PORT_IN_USE or E_USAGE. */
  listen(): Promise<string> {
    return this.#server.listen()
  }

  /** Resolves when a worker has come, so that it is known what the relay computes with; or when that is not waited for any more. */
  async worker(over: AbortSignal): Promise<void> {
    const came = new Promise<void>((resolve) => this.#waiting.push(resolve))
    if (!this.#numerics) await Promise.race([came, once(over, 'abort')])
  }

  #page(route: string, metrics: Metrics): Page | undefined | Promise<Page> {
    const text = (status: number, body: string) => ({ status, type: 'text/plain', body: `${body}\n` })
    if (route === '/healthz') return text(200, 'ok')
    if (route === '/readyz') return this.#useful ? text(200, 'ready') : text(503, 'no worker is ready')
    if (route !== '/metrics') return undefined
    return metrics.text().then((body) => ({ status: 200, type: Metrics.type, body }))
  }

  /** What a worker is told, once the coordinator above has told it. Throws E_DISHONEST or E_NUMERICS. */
  async #admit(hello: Hello): Promise<Welcome> {
    this.#cluster.checkBan(hello)
    this.#compare(hello)
    while (!this.#site) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    const { kind: _, version: __, name: ___, ...welcome } = this.#site.welcome
    return { ...welcome, samples: hello.fingerprint !== welcome.fingerprint }
  }

  #compare({ numerics, engine }: Hello): void {
    if (!this.#numerics) {
      this.#numerics = numerics
      const own = this.#dataset ? { fingerprint: this.#dataset.fingerprint } : {}
      this.hear({
        kind: 'engine',
        numerics,
        description: `relay of workers with ${engine}`.slice(0, 2_000),
        ...own,
        relay: true,
      })
      this.#wake()
    }
    const [first, other] = [numericsText(this.#numerics), numericsText(numerics)]
    if (first === other) return
    throw new ConvoyError(
      'E_NUMERICS',
      `the workers of this relay compute with ${first}; this one with ${other}`,
      'Start it with the same engine, precision and threads on the same kind of processor, or give it a relay of its own.',
    )
  }

  #wake(): void {
    for (const go of this.#waiting.splice(0)) go()
  }

  order(order: Order): void {
    switch (order.kind) {
      case 'compile':
        return this.#welcome(order.welcome)
      case 'parameters': {
        const { step, payload } = order
        this.#drop(({ work }) => work.step !== step)
        const bytes = encodeFrame({ kind: 'parameters', step }, payload)
        this.#parameters = { step, bytes, version: ++this.#versions, retain() {}, release() {} }
        return
      }
      case 'parametersTail':
        // A relay gets all at once.
        return
      case 'work':
        return this.#take(order.work, order.payload)
      case 'cancel':
        return this.#drop(({ work }) => work.id === order.id)
      case 'drain':
        this.#forget()
        this.hear({ kind: 'draining' })
        return this.hear({ kind: 'drained' })
      case 'forget':
        this.#parameters = undefined
        return this.#forget()
      case 'refused':
        // One of the workers was wrong, and it was not noticed here: from now on all that they give is checked.
        if (order.code === 'E_DISHONEST') this.#verify(1)
        return
      case 'reuse':
        return this.#site?.frames.reuse(order.frame)
      case 'stop':
        return void this.dispose()
      default:
        order satisfies never
    }
  }

  /** The coordinator above tells the run. Workers that are in another come again. */
  #welcome(welcome: MessageOf<CoordinatorMessage, 'welcome'>): void {
    const same = (one: object) => JSON.stringify({ ...one, name: '', samples: true })
    if (!this.#site || same(this.#site.welcome) !== same(welcome)) {
      for (const member of [...this.#cluster.members]) {
        this.#cluster.leave(member, 'the run above is another')
        member.socket.terminate()
      }
      this.#site = this.#siteOf(welcome)
      this.#wake()
    }
    this.#verify(Math.max(this.#verified, welcome.relay?.verify ?? 0))
    if (this.#useful) this.hear({ kind: 'compiled' })
  }

  #verify(share: number): void {
    this.#cluster.verify = this.#verified = share
  }

  #siteOf(welcome: MessageOf<CoordinatorMessage, 'welcome'>): Site {
    const { size } = trainedLayout(welcome.model)
    const own = this.#dataset?.fingerprint === welcome.fingerprint ? this.#dataset : undefined
    return {
      welcome,
      arena: new Arena(size),
      frames: new SumFrames(size, welcome.seed),
      samples: own && new Samples(own.train),
      zeros: new Float32Array(size),
    }
  }

  /** Tells the coordinator above whether it can give work. */
  #look(): void {
    const { useful } = this.#cluster
    if (useful === this.#useful) return
    this.#useful = useful
    if (!this.#site || this.#closed) return
    if (!useful) this.#forget()
    this.hear({ kind: useful ? 'compiled' : 'draining' })
  }

  #take(work: AskedWork, payload: Uint8Array): void {
    try {
      if (this.#parameters?.step !== work.step)
        throw new Error(`the parameters of step ${work.step} are not here`)
      const node = new AskedNode(this.#site!, work, payload)
      if (this.#job && !this.#cluster.computing) this.#finish(this.#job)
      if (this.#job?.takes(node)) {
        this.#job.nodes.push(node)
        this.#cluster.add(work.lo, work.hi)
      } else {
        this.#drop(() => true)
        this.#begin([node])
      }
    } catch (thrown) {
      this.hear({ kind: 'failed', work, why: asConvoyError(thrown).message })
    }
  }

  #begin(nodes: readonly [AskedNode, ...AskedNode[]]): void {
    const job = new RelayJob(this.#site!, nodes, (node) => {
      // While it may still turn out that a worker was wrong, nothing goes up.
      if (this.#verified === 0 && node.complete) this.#answer(node)
    })
    this.#job = job
    void this.#cluster.compute(job, this.#parameters!).then(() => {
      if (this.#job === job) this.#finish(job)
    })
    for (const { work } of nodes.slice(1)) this.#cluster.add(work.lo, work.hi)
  }

  /** Nothing of the job is left to be computed. */
  #finish(job: RelayJob): void {
    this.#job = undefined
    for (const node of job.nodes) if (!node.over && node.complete) this.#answer(node)
  }

  #answer(node: AskedNode): void {
    this.hear({ kind: 'frame', ...node.answer(this.#answeredAt, this.#cluster.size) })
    this.#answeredAt = performance.now()
    node.end()
  }

  /** Nodes of which an answer is waited for above. */
  get #asked(): AskedNode[] {
    return this.#job?.nodes.filter(({ over }) => !over) ?? []
  }

  /** Gives up nodes, and says so. */
  #drop(unwanted: (node: AskedNode) => boolean): void {
    for (const node of this.#asked.filter(unwanted)) {
      node.end()
      this.#cluster.withdraw(node.work.lo, node.work.hi)
      this.hear({ kind: 'failed', work: node.work, why: 'cancelled' })
    }
  }

  /** Gives up all nodes without a word: others were given them. */
  #forget(): void {
    for (const node of this.#asked) node.end()
    this.#cluster.abandon()
  }

  /** A worker was wrong, and is gone: what it may have had a part in is computed anew. */
  #restart(): void {
    const [first, ...others] = this.#asked
    this.#job = undefined
    this.#cluster.abandon()
    if (!first) return
    for (const node of [first, ...others]) node.restart()
    this.#begin([first, ...others])
  }

  /** Nobody below has a finite answer to leaves [lo, hi): whether others have, the coordinator above finds out. */
  #notFinite(lo: number, hi: number): void {
    const node = this.#asked.find((one) => one.holds(lo, hi))
    if (!node) return
    this.#cluster.withdraw(node.work.lo, node.work.hi)
    this.hear({ kind: 'frame', ...node.notFinite() })
    node.end()
  }

  /** Dismisses the workers; with `retryAfter`, in seconds, they look for a relay again. */
  async close(message: string, retryAfter?: number): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    this.#cluster.dispose()
    await this.#server.close(message, retryAfter)
  }

  dispose(): Promise<void> {
    return this.close('the relay is stopping; it will be looked for', RETURN)
  }
}
