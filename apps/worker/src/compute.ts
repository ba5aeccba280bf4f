import { augmentationSpec, LeafImages, loadDataset, preprocessingSpec, type Dataset } from '@convoy/data'
import { Masks, PREDICT_BATCH, type CompiledModel, type Engine } from '@convoy/engine'
import { createEngine } from '@convoy/engines'
import { asConvoyError } from '@convoy/errors'
import { parameterLayout, resized, trainedLayout, volume, type ModelSpec } from '@convoy/model'
import { LocalSteps } from '@convoy/optim'
import {
  encodeFrame,
  payloadOf,
  RESERVED,
  reserveFrame,
  sealFrame,
  type CoordinatorMessage,
  type MessageOf,
} from '@convoy/protocol'
import { NodeSummer, roundToBf16, type Sum } from '@convoy/reduction'
import { setImmediate as hearMessages } from 'node:timers/promises'
import { MessageChannel, parentPort, workerData } from 'node:worker_threads'
import type { ComputeSetup, Order, Outcome } from './messages.ts'

/**
 * The compute thread: it owns the engine and does one request after another. Native calls block it for milliseconds,
 * which is why the socket lives on the other thread.
 */

type Work = MessageOf<CoordinatorMessage, 'work'>
type Welcome = MessageOf<CoordinatorMessage, 'welcome'>

interface Request {
  readonly work: Work
  readonly payload: Uint8Array
}

const port = parentPort!
const setup = workerData as ComputeSetup
const tell = (outcome: Outcome, transfer: ArrayBuffer[] = []) => port.postMessage(outcome, transfer)

const { port1: nowhere } = new MessageChannel()
nowhere.close()
/**
 * Frees a payload that was used: garbage is collected only where tens of megabytes of it lie about. What is sent to a closed
 * port is gone at once; `ArrayBuffer.prototype.transfer` would do, but Node.js 20 has none.
 */
const free = ({ buffer }: Uint8Array) => nowhere.postMessage(undefined, [buffer as ArrayBuffer])

/** A leaf's input, in arrays that are used again. */
interface Leaf {
  readonly batch: LeafImages
  readonly masks: Masks
}

/** What computes images of one size. */
interface Plan {
  readonly compiled: CompiledModel
  /** Samples of a leaf. */
  readonly microBatch: number
  /** Two: while an engine computes one, it may take the next in. */
  readonly leaves: readonly Leaf[]
  /** Parameters that the engine holds: after how many updates. */
  step: number
}

/** What a replica takes its steps with. */
interface Local {
  readonly steps: LocalSteps
  /** Steps of a round, and samples of each. */
  readonly count: number
  readonly batchSize: number
  /** Sums the gradients of a step. */
  readonly summer: NodeSummer
  /** All parameters that a round starts from. */
  readonly start: Float32Array
}

/** Everything that belongs to one run: made at its welcome, reused in every step. */
class Bench {
  readonly welcome: Welcome
  readonly model: ModelSpec
  /** For images as they are: what tests are computed with. */
  readonly full: Plan
  /** For images that are made smaller, by size. */
  readonly smaller: ReadonlyMap<number, Plan>
  readonly summer: NodeSummer
  /** Where steps are rounds. */
  readonly local: Local | undefined
  readonly pixelsPerImage: number
  readonly parameterCount: number
  /** Numbers of a gradient: one for each parameter that is trained. */
  readonly gradientSize: number
  /** Frames that came back after they were sent. */
  readonly frames: ArrayBuffer[] = []

  private constructor(welcome: Welcome, full: Plan, smaller: ReadonlyMap<number, Plan>) {
    const { model } = welcome
    this.welcome = welcome
    this.model = model
    this.full = full
    this.smaller = smaller
    this.parameterCount = parameterLayout(model).size
    this.gradientSize = trainedLayout(model).size
    this.summer = new NodeSummer(this.gradientSize)
    this.local = localOf(welcome)
    this.pixelsPerImage = volume(model.input)
  }

  /** Whether parameters may be loaded more than once: by plans of several sizes, or after the steps of a round. */
  get keepsParameters(): boolean {
    return this.smaller.size > 0 || this.local !== undefined
  }

  /** Compiles the model for every size that the run has. */
  static async open(engine: Engine, welcome: Welcome): Promise<Bench> {
    const { model, microBatch } = welcome
    const full = await makePlan(engine, welcome, model.input[0], microBatch)
    const smaller = new Map<number, Plan>()
    for (const { size, microBatch } of welcome.smaller)
      smaller.set(size, await makePlan(engine, welcome, size, microBatch))
    return new Bench(welcome, full, smaller)
  }

  plan(size: number | undefined): Plan {
    const plan = size === undefined ? this.full : this.smaller.get(size)
    if (!plan) throw new Error(`images of ${size} pixels a side were not announced`)
    return plan
  }

  /** Makes every engine forget which parameters it holds. */
  forget(): void {
    for (const plan of [this.full, ...this.smaller.values()]) plan.step = -1
  }

  dispose(): void {
    for (const { compiled } of [this.full, ...this.smaller.values()]) compiled.dispose()
  }
}

function localOf({ model, rounds }: Welcome): Local | undefined {
  if (!rounds) return undefined
  const steps = new LocalSteps(model, rounds.optimizer)
  const { arena, parameters } = steps
  const summer = new NodeSummer(arena.size, arena)
  const start = new Float32Array(parameters.length)
  return { steps, summer, start, count: rounds.steps, batchSize: rounds.batchSize }
}

async function makePlan(engine: Engine, welcome: Welcome, size: number, microBatch: number): Promise<Plan> {
  const { model } = welcome
  const full = size === model.input[0]
  const input = full ? model : resized(model, size)
  const compiled = await engine.compile(input, microBatch)
  const preprocessing = preprocessingSpec.parse(welcome.preprocessing)
  const augmentation = augmentationSpec.parse(welcome.augmentation)
  const most = full ? Math.max(microBatch, PREDICT_BATCH) : microBatch
  const leaves = Array.from({ length: compiled.begin ? 2 : 1 }, () => ({
    batch: new LeafImages(model.input, preprocessing, augmentation, most, size),
    masks: new Masks(input, microBatch),
  }))
  return { compiled, microBatch, leaves, step: -1 }
}

let engine: Engine
let dataset: Dataset | undefined
let bench: Bench | undefined
let parameters: { step: number; payload: Uint8Array } | undefined
let queue: Request[] = []
let current: Request | undefined
let cancelled = false
let busy = false
/** Whether the request at hand is the last. */
let draining = false

async function start(): Promise<void> {
  engine = await createEngine(setup.engine)
  dataset = setup.data === undefined ? undefined : await loadDataset(setup.data, setup.dataOptions ?? {})
  tell({
    kind: 'engine',
    numerics: engine.numerics,
    description: engine.description,
    ...(dataset ? { fingerprint: dataset.fingerprint } : {}),
  })
}

async function compile(welcome: Welcome): Promise<void> {
  bench?.dispose()
  bench = undefined
  bench = await Bench.open(engine, welcome)
  tell({ kind: 'compiled' })
  void run()
}

function handle(order: Order): void {
  switch (order.kind) {
    case 'compile':
      compile(order.welcome).catch(fail)
      break
    case 'parameters':
      if (parameters && bench?.keepsParameters) free(parameters.payload)
      parameters = order
      // A step that is done again comes with other parameters.
      bench?.forget()
      // Requests on older parameters are of no use to anyone now.
      drop((request) => request.work.step !== order.step)
      break
    case 'work':
      queue.push(order)
      void run()
      break
    case 'cancel':
      drop((request) => request.work.id === order.id)
      break
    case 'drain':
      queue = []
      draining = true
      tell({ kind: 'draining', ...(current ? { finishing: current.work.id } : {}) })
      if (!current) tell({ kind: 'drained' })
      break
    case 'forget':
      queue = []
      cancelled = true
      parameters = undefined
      break
    case 'reuse':
      bench?.frames.push(order.frame)
      break
    case 'stop':
      bench?.dispose()
      engine.dispose()
      port.close()
      break
    default:
      order satisfies never
  }
}

/** Gives up requests, and says so: each request gets exactly one answer. */
function drop(unwanted: (request: Request) => boolean): void {
  queue = queue.filter((request) => {
    if (!unwanted(request)) return true
    tell({ kind: 'failed', work: request.work, why: 'cancelled' })
    return false
  })
  if (current && unwanted(current)) cancelled = true
}

/** Works the queue off. */
async function run(): Promise<void> {
  if (busy || !bench) return
  busy = true
  for (let request = queue.shift(); request; request = queue.shift()) {
    current = request
    cancelled = false
    const { work } = request
    try {
      const plan = bench.plan(work.size)
      if (work.task === 'evaluate') await evaluate(bench, plan, request)
      else await computeGradient(bench, plan, request)
    } catch (thrown) {
      tell({ kind: 'failed', work, why: asConvoyError(thrown).message })
    }
    free(request.payload)
    current = undefined
    if (draining) tell({ kind: 'drained' })
    await hearMessages()
  }
  busy = false
}

/** The parameters of a step, as they came. */
function received({ parameterCount }: Bench, step: number): Float32Array {
  if (parameters?.step !== step) throw new Error(`the parameters of step ${step} are not here`)
  const { buffer, byteOffset } = parameters.payload
  return new Float32Array(buffer, byteOffset, parameterCount)
}

function load(bench: Bench, plan: Plan, step: number): void {
  if (parameters?.step === step && plan.step === step) return
  plan.compiled.load(received(bench, step))
  // With plans of several sizes, a test may follow on the same parameters; in a round, another replica.
  if (!bench.keepsParameters) free(parameters!.payload)
  plan.step = step
}

/** Sample ids of a request, and where its labels and pixels are. */
function unpack(bench: Bench, { work, payload }: Request) {
  const ids = new Uint32Array(payload.buffer, payload.byteOffset, work.count)
  if (work.pixels === 'none') {
    if (!dataset) throw new Error('there is no data set here')
    return { ids, labels: undefined, pixels: undefined }
  }
  const labels = new Int32Array(payload.buffer, payload.byteOffset + 4 * work.count, work.count)
  const at = payload.byteOffset + 8 * work.count
  const size = work.count * bench.pixelsPerImage
  const pixels =
    work.pixels === 'uint8'
      ? new Uint8Array(payload.buffer, at, size)
      : new Float32Array(payload.buffer, at, size)
  return { ids, labels, pixels }
}

/** Makes a leaf's input of samples [from, from + count) of a request, varied where it is for training. */
function fill(
  bench: Bench,
  samples: ReturnType<typeof unpack>,
  from: number,
  count: number,
  { work }: Request,
  { batch }: Leaf,
): void {
  const { pixelsPerImage } = bench
  const { seed } = bench.welcome
  batch.clear()
  for (let i = 0; i < count; i++) {
    const sample = samples.ids[from + i]
    const at = samples.pixels ? from + i : sample
    const pixels = samples.pixels ?? dataset!.train.pixels
    batch.add(
      pixels.subarray(at * pixelsPerImage, (at + 1) * pixelsPerImage),
      samples.labels ? samples.labels[from + i] : dataset!.train.labels[sample],
      work.task === 'gradient' ? { seed, epoch: work.epoch, sample } : undefined,
    )
  }
}

/** Leaves [lo, hi) of a batch. */
interface Leaves {
  readonly lo: number
  readonly hi: number
  /** Where their samples are in the request. */
  readonly from: number
  readonly to: number
  /** The number of their batch, which dropout is drawn by. */
  readonly step: number
}

/**
 * Sums the gradients of leaves in the tree's order, on the parameters that the engine has.
 *
 * @returns False where it was cancelled.
 */
async function sumLeaves(
  bench: Bench,
  plan: Plan,
  request: Request,
  samples: ReturnType<typeof unpack>,
  { lo, hi, from, to, step }: Leaves,
  summer: NodeSummer,
): Promise<boolean> {
  const { epoch } = request.work
  const { seed } = bench.welcome
  const { compiled, leaves, microBatch } = plan
  summer.begin(lo, hi)
  const prepare = (leaf: number): Leaf => {
    const first = from + (leaf - lo) * microBatch
    const count = Math.min(microBatch, to - first)
    const prepared = leaves[leaf % leaves.length]
    fill(bench, samples, first, count, request, prepared)
    prepared.masks.fill({ seed, epoch, step, leaf }, count)
    compiled.begin?.(prepared.batch, prepared.masks)
    return prepared
  }
  let current = prepare(lo)
  for (let leaf = lo; leaf < hi; leaf++) {
    const more = leaf + 1 < hi
    const { batch, masks } = current
    // An engine that can begin is given the next leaf before this one is waited for.
    if (more && compiled.begin) current = prepare(leaf + 1)
    const { loss, correct } = await compiled.gradient(batch, masks, summer.buffer())
    summer.push(loss, correct, batch.count)
    if (more) await hearMessages()
    if (cancelled) return false
    if (more && !compiled.begin) current = prepare(leaf + 1)
  }
  return true
}

/** A node's sum: of its leaves' gradients, or of what a round moved its replicas by. */
async function computeGradient(bench: Bench, plan: Plan, request: Request): Promise<void> {
  const { work } = request
  const { lo, hi, step, count: to } = work
  const samples = unpack(bench, request)
  const started = performance.now()
  let done: boolean
  if (work.round) done = await computeRound(bench, plan, request, samples)
  else {
    load(bench, plan, step)
    done = await sumLeaves(bench, plan, request, samples, { lo, hi, from: 0, to, step }, bench.summer)
  }
  if (done) sendSum(bench, work, bench.summer.result(), (performance.now() - started) / 1000)
  else tell({ kind: 'failed', work, why: 'cancelled' })
}

/** Has the node's replicas take their steps, one after another, and sums what these moved them by. */
async function computeRound(
  bench: Bench,
  plan: Plan,
  request: Request,
  samples: ReturnType<typeof unpack>,
): Promise<boolean> {
  const { work } = request
  const { local, summer } = bench
  const { steps, count: each, batchSize, start } = local!
  start.set(received(bench, work.step))
  summer.begin(work.lo, work.hi)
  for (let replica = work.lo; replica < work.hi; replica++) {
    const from = (replica - work.lo) * each * batchSize
    const end = Math.min(work.count, from + each * batchSize)
    let loss = 0
    let correct = 0
    steps.begin(start)
    for (let first = from, i = 0; first < end; first += batchSize, i++) {
      const batch = {
        from: first,
        to: Math.min(end, first + batchSize),
        step: work.round!.step + replica * each + i,
      }
      if (first > 0) await hearMessages()
      if (cancelled) return false
      const sum = await sumStep(bench, plan, request, samples, batch)
      if (!sum) return false
      steps.update(sum.gradient, sum.count, work.round!.rates[i])
      loss += sum.loss
      correct += sum.correct
    }
    steps.difference(end - from, summer.buffer())
    summer.push(loss, correct, end - from)
  }
  return true
}

/** The gradient's sum over a whole batch on the replica's parameters; undefined where it was cancelled. */
async function sumStep(
  bench: Bench,
  plan: Plan,
  request: Request,
  samples: ReturnType<typeof unpack>,
  batch: Omit<Leaves, 'lo' | 'hi'>,
): Promise<Sum | undefined> {
  const { steps, summer } = bench.local!
  const hi = Math.ceil((batch.to - batch.from) / plan.microBatch)
  plan.compiled.load(steps.parameters)
  plan.step = -1
  const done = await sumLeaves(bench, plan, request, samples, { ...batch, lo: 0, hi }, summer)
  return done ? summer.result() : undefined
}

/** Answers a request with a node's sum, in the encoding that was asked for. */
function sendSum(bench: Bench, work: Work, sum: Sum, seconds: number): void {
  const bf16 = work.encoding === 'bf16'
  const payloadBytes = (bf16 ? 2 : 4) * bench.gradientSize
  const frame = bench.frames.pop() ?? reserveFrame(4 * bench.gradientSize)
  if (bf16) roundToBf16(sum.gradient.values, new Uint16Array(frame, RESERVED, bench.gradientSize))
  else payloadOf(frame, bench.gradientSize).set(sum.gradient.values)
  const { id, step, lo, hi, count } = work
  const { loss, correct } = sum
  const header = { kind: 'gradient', id, step, lo, hi, count, loss, correct, seconds }
  const length = sealFrame(frame, header, payloadBytes).byteLength
  tell({ kind: 'frame', frame, length, reusable: true }, [frame])
}

/** Logits of the request's images. */
async function evaluate(bench: Bench, plan: Plan, request: Request): Promise<void> {
  const { work } = request
  const { classes } = bench.model
  load(bench, plan, work.step)
  const samples = unpack(bench, request)
  const started = performance.now()
  const logits = new Float32Array(work.count * classes)
  for (let from = 0; from < work.count; from += PREDICT_BATCH) {
    const count = Math.min(PREDICT_BATCH, work.count - from)
    const [leaf] = plan.leaves
    fill(bench, samples, from, count, request, leaf)
    await plan.compiled.predict(
      leaf.batch.images,
      count,
      logits.subarray(from * classes, (from + count) * classes),
    )
    if (from + count < work.count) await hearMessages()
    if (cancelled) return tell({ kind: 'failed', work, why: 'cancelled' })
  }
  const { id, step, lo, hi } = work
  const seconds = (performance.now() - started) / 1000
  const bytes = encodeFrame({ kind: 'evaluation', id, step, lo, hi, seconds }, logits)
  const frame = bytes.buffer as ArrayBuffer
  tell({ kind: 'frame', frame, length: bytes.byteLength, reusable: false }, [frame])
}

function fail(thrown: unknown): void {
  const { code, message, remedy, stack } = asConvoyError(thrown)
  tell({ kind: 'error', code, message, remedy, ...(stack ? { stack } : {}) })
}

port.on('message', (order: Order) => handle(order))
start().catch(fail)
