import { modelFor, openRun, trainingSchema, type RunEvent } from '@convoy/coordinator'
import type { Dataset } from '@convoy/data'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { loadData } from './dataset.ts'
import { Display, styleFor } from './display.ts'
import { EngineProcess } from './engine-process.ts'
import { LocalWorkers, planWorkers } from './local.ts'
import type { Measure } from './measure-engine.ts'
import { besideOnednn } from './onednn.ts'
import { collect, settle, type Given } from './options.ts'
import { EXIT, trainSchema } from './schemas.ts'
import { median } from './statistics.ts'

/** Seconds for which each side is measured in its turn: short, since a shared host's speed changes within minutes. */
const TURN = 5
/** Updates before anything is measured: engines and sockets warm up, and speeds become known. */
const WARM_UP = 6

/** Both sides are measured with the same leaves, so their size is a number. */
const benchSchema = trainSchema.extend({ microBatch: trainingSchema.shape.microBatch })
type Config = ReturnType<typeof settle<typeof benchSchema>>

/** Resident memory of a process in MB, or NaN where the system does not tell. */
async function residentMegabytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? NaN) / 1000
}

/** A run on a local cluster that trains for a few updates at a time. */
async function openCluster(config: Config, dataset: Dataset, workers: { count: number; gpus: number }) {
  const runs = await mkdtemp(path.join(tmpdir(), 'convoy-bench-'))
  const ends: number[] = []
  let samples = 0
  let last = 0
  const hear = (event: RunEvent) => {
    if (event.event !== 'step') return
    if (ends.length > 0) samples += event.samples
    ends.push(performance.now())
    if (ends.length === last) run.stop()
  }
  const settings = { ...config, port: 0, runs, name: 'bench', evaluateEvery: 0, epochs: 1_000_000 }
  const run = await openRun(settings, dataset, hear)
  let failure: Error | undefined
  const local = new LocalWorkers(run.url, config, config.token, (error) => {
    failure ??= error
    run.stop()
  })
  local.start(workers)
  return {
    /** Images/s over so many updates after a first one, at whose start the workers have the parameters already. */
    async measure(updates: number): Promise<number> {
      ends.length = samples = 0
      last = 1 + updates
      await run.train()
      if (failure) throw failure
      return (1000 * samples) / (ends[updates] - ends[0])
    },
    /** Resident memory in MB: of the largest worker, and of this process. */
    async memory() {
      const all = await Promise.all([...local.pids.values()].map(residentMegabytes))
      return { worker: Math.max(...all), coordinator: process.memoryUsage().rss / 1e6 }
    },
    batchSize: run.training.length.batchSize,
    async close() {
      local.expectEnd()
      await run.close('the measurement is over')
      await local.close()
      await rm(runs, { recursive: true, force: true })
    },
  }
}

/**
 * Images/s of engines that wait for the slowest of them after every `share` leaves, as the workers of a step must, and for
 * nothing else: from the times that their leaves took when nobody waited.
 */
function inStep(leafSeconds: readonly (readonly number[])[], leaf: number, share: number): number {
  const steps = Math.max(1, Math.floor(Math.min(...leafSeconds.map(({ length }) => length)) / share))
  let seconds = 0
  for (let step = 0; step < steps; step++) {
    const shares = leafSeconds.map((times) => times.slice(step * share, (step + 1) * share))
    seconds += Math.max(...shares.map((times) => times.reduce((sum, time) => sum + time, 0)))
  }
  return (leafSeconds.length * steps * share * leaf) / seconds
}

/** Images/s of the engines alone, and of these if they only waited for each other after every `share` leaves. */
async function measureBare(engines: readonly EngineProcess[], request: Measure, share: number) {
  const all = await Promise.all(engines.map((one) => one.measure(request)))
  return {
    bare: all.reduce((sum, one) => sum + one.imagesPerSecond, 0),
    inStep: inStep(
      all.map(({ leafSeconds }) => leafSeconds),
      request.leaf,
      share,
    ),
  }
}

/** Images/s in one round: of the engines alone, of these if they only waited for each other, and of the cluster. */
interface Round {
  readonly bare: number
  readonly inStep: number
  readonly cluster: number
}

function summarise(rounds: readonly Round[]) {
  const ratios = rounds.map((one) => one.cluster / one.bare).sort((a, b) => a - b)
  return {
    clusterVsBare: median(ratios),
    quartiles: [0.25, 0.75].map((at) => ratios[Math.round(at * (ratios.length - 1))]),
    clusterVsInStep: median(rounds.map((one) => one.cluster / one.inStep)),
    inStepVsBare: median(rounds.map((one) => one.inStep / one.bare)),
    bareImagesPerSecond: median(rounds.map(({ bare }) => bare)),
    clusterImagesPerSecond: median(rounds.map(({ cluster }) => cluster)),
  }
}

/** `convoy bench cluster`: what coordinator and wire leave of the engines' bare speed. */
export async function benchCluster(
  given: Given,
  options: { json?: boolean; rounds: number },
): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const values = collect(trainSchema, given)
  const config = settle(benchSchema, values)
  const dataset = await besideOnednn(config, display, () => loadData(values, display))
  const plan = await planWorkers(config)
  const workers = plan.count
  const { rounds } = options
  const { engine, precision, threads, device = 0, gpu } = config
  const request = {
    engine: { engine, precision, threads, device, gpu },
    model: modelFor(config, dataset),
    leaf: config.microBatch,
    seconds: TURN,
  }
  const engines = Array.from({ length: workers }, () => new EngineProcess())
  const cluster = await openCluster(config, dataset, plan)
  const share = Math.max(1, Math.round(cluster.batchSize / config.microBatch / workers))
  const results: Round[] = []
  let memory: Awaited<ReturnType<typeof cluster.memory>>
  try {
    display.progress('warming up')
    await cluster.measure(WARM_UP)
    let before = await measureBare(engines, request, share)
    const updates = Math.max(2, Math.round((TURN * before.bare) / cluster.batchSize))
    for (let round = 1; round <= rounds; round++) {
      display.progress(`round ${round} of ${rounds}`)
      const speed = await cluster.measure(updates)
      const after = await measureBare(engines, request, share)
      // What the host's speed was in between is taken to be halfway.
      const between = (key: keyof typeof after) => (before[key] + after[key]) / 2
      const result = { bare: between('bare'), inStep: between('inStep'), cluster: speed }
      before = after
      results.push(result)
      if (options.json) process.stdout.write(`${JSON.stringify({ event: 'round', round, ...result })}\n`)
      else
        display.say(
          `round ${round}: engines alone ${result.bare.toFixed(1)} images/s, in step ${result.inStep.toFixed(1)}, cluster ${result.cluster.toFixed(1)}`,
        )
    }
    memory = await cluster.memory()
  } finally {
    for (const one of engines) one.close()
    await cluster.close()
  }
  const summary = {
    event: 'summary',
    ...summarise(results),
    workers,
    batchSize: cluster.batchSize,
    workerMegabytes: memory.worker,
    coordinatorMegabytes: memory.coordinator,
  }
  if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
  else {
    display.say(
      `${workers} workers: the cluster does ${(100 * summary.clusterVsBare).toFixed(1)} % of the engines' bare speed (${summary.clusterImagesPerSecond.toFixed(1)} of ${summary.bareImagesPerSecond.toFixed(1)} images/s), and ${(100 * summary.clusterVsInStep).toFixed(1)} % of what these would do if they only waited for each other; a worker takes ${summary.workerMegabytes.toFixed(0)} MB, the coordinator ${summary.coordinatorMegabytes.toFixed(0)} MB`,
    )
  }
  return EXIT.done
}
