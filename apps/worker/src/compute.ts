import { loadDataset, type Dataset } from '@convoy/data'
import { PREDICT_BATCH, type Engine } from '@convoy/engine'
import { createEngine } from '@convoy/engines'
import { asConvoyError } from '@convoy/errors'
import {
  encodeFrame,
  type CoordinatorMessage,
  type MessageOf,
  type Order,
  type Outcome,
} from '@convoy/protocol'
import { setImmediate as hearMessages } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { Bench, free } from './bench.ts'
import type { ComputeSetup } from './compute-thread.ts'
import { computeRound } from './round.ts'
import { Task, type Request } from './task.ts'

/**
 * The compute thread: it owns the engine and does one request after another. Native calls block it for milliseconds,
 * which is why the socket lives on the other thread.
 */

type Welcome = MessageOf<CoordinatorMessage, 'welcome'>

const port = parentPort!
const setup = workerData as ComputeSetup
const tell = (outcome: Outcome, transfer: ArrayBuffer[] = []) => port.postMessage(outcome, transfer)

let engine: Engine
let dataset: Dataset | undefined
let bench: Bench | undefined
let queue: Request[] = []
let current: Request | undefined
/** The current request's, once it is begun. */
let task: Task | undefined
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
      bench?.take(order.step, order.payload, order.ahead)
      // Requests on older parameters are of no use to anyone now.
      drop((request) => request.work.step !== order.step)
      break
    case 'parametersTail':
      bench?.takeTail(order, order.payload)
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
      if (task) task.cancelled = true
      bench?.forget()
      break
    case 'refused':
      // What an engine computes twice is the same.
      break
    case 'reuse':
      bench?.frames.reuse(order.frame)
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
  if (task && unwanted(current!)) task.cancelled = true
}

/** Works the queue off. */
async function run(): Promise<void> {
  if (busy || !bench) return
  busy = true
  for (let request = queue.shift(); request; request = queue.shift()) {
    current = request
    try {
      task = new Task(bench, request, dataset)
      if (request.work.task === 'evaluate') await evaluate(task)
      else await computeGradient(task)
    } catch (thrown) {
      tell({ kind: 'failed', work: request.work, why: asConvoyError(thrown).message })
    }
    free(request.payload)
    current = task = undefined
    if (draining) tell({ kind: 'drained' })
    await hearMessages()
  }
  busy = false
}

/** Answers with a node's sum: of its leaves' gradients, or of what a round moved its replicas by. */
async function computeGradient(task: Task): Promise<void> {
  const { bench, work } = task
  const { lo, hi, step, count: to } = work
  const started = performance.now()
  let ahead = false
  const tail = work.cut === undefined ? undefined : { cut: work.cut, done: () => (ahead = sendTail(task)) }
  let done: boolean
  if (work.round) done = await computeRound(task)
  else {
    bench.load(task.plan, step)
    done = await task.sumLeaves({ lo, hi, from: 0, to, step }, bench.summer, tail)
  }
  if (done) sendSum(task, (performance.now() - started) / 1000, ahead)
  else tell({ kind: 'failed', work, why: 'cancelled' })
}

/** Sends what the engine has of a node's sum while it computes the rest. */
function sendTail({ bench, work }: Task): true {
  const { frame, length } = bench.frames.sealTail(work, bench.summer.joinTail(work.cut!))
  tell({ kind: 'frame', frame, length, reusable: true }, [frame])
  return true
}

/**
 * Answers a request with its node's sum, in the encoding that was asked for.
 *
 * @param ahead Whether its end was sent before.
 */
function sendSum({ bench, work }: Task, seconds: number, ahead: boolean): void {
  const { summer, frames } = bench
  const { gradient, loss, correct } = summer.result()
  const { frame, length } = frames.seal(work, { values: gradient.values, loss, correct, seconds }, ahead)
  tell({ kind: 'frame', frame, length, reusable: true }, [frame])
}

/** Logits of the request's images. */
async function evaluate(task: Task): Promise<void> {
  const { bench, work, plan } = task
  const { classes } = bench.model
  bench.load(plan, work.step)
  const started = performance.now()
  const logits = new Float32Array(work.count * classes)
  for (let from = 0; from < work.count; from += PREDICT_BATCH) {
    const count = Math.min(PREDICT_BATCH, work.count - from)
    const [leaf] = plan.leaves
    task.fill(from, count, leaf)
    await plan.compiled.predict(
      leaf.batch.images,
      count,
      logits.subarray(from * classes, (from + count) * classes),
    )
    if (from + count < work.count) await hearMessages()
    if (task.cancelled) return tell({ kind: 'failed', work, why: 'cancelled' })
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
