import { openRun, trainingSchema, type RunEvent } from '@convoy/coordinator'
import type { Dataset } from '@convoy/data'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { EngineProcess } from './bench-engine.ts'
import { Display } from './display.ts'
import { LocalWorkers, planWorkers } from './local.ts'
import { collect, settle, type Given } from './options.ts'
import { EXIT, trainSchema } from './schemas.ts'
import { median } from './statistics.ts'
import { loadData, styleFor } from './train.ts'

/** Seconds that the bare engines are measured in a round. */
const BARE = 5
/** Updates at the start of a round's run that are not counted: engines and sockets warm up. */
const WARM_UP = 6
/** Updates of a round's run. */
const STEPS = 26

/** Both sides are measured with the same leaves, so their size is a number. */
const benchSchema = trainSchema.extend({ microBatch: trainingSchema.shape.microBatch })
type Config = ReturnType<typeof settle<typeof benchSchema>>

/** Resident memory of a process in MB, or NaN where the system does not tell. */
async function residentMegabytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? NaN) / 1000
}

/** A short run on a local cluster: images/s after the warm-up, and the memory of its processes at the end. */
async function runCluster(config: Config, dataset: Dataset, workers: { count: number; gpus: number }) {
  const runs = await mkdtemp(path.join(tmpdir(), 'convoy-bench-'))
  const ends: number[] = []
  let samples = 0
  let worker = NaN
  const run = await openRun(
    { ...config, port: 0, runs, name: 'bench', steps: STEPS, evaluateEvery: 0 },
    dataset,
    (event: RunEvent) => {
      if (event.event !== 'step') return
      ends.push(performance.now())
      if (ends.length > WARM_UP) samples += event.samples
      if (ends.length === STEPS) {
        void Promise.all([...local.pids.values()].map(residentMegabytes)).then(
          (all) => (worker = Math.max(...all)),
        )
        // Testing is not what is measured here.
        setTimeout(() => run.stop(), 50)
      }
    },
  )
  let failure: Error | undefined
  const local = new LocalWorkers(run.url, config, config.token, (error) => {
    failure ??= error
    run.stop()
  })
  local.start(workers)
  try {
    await run.train()
    if (failure) throw failure
    const coordinator = process.memoryUsage().rss / 1e6
    const imagesPerSecond = (1000 * samples) / (ends[STEPS - 1] - ends[WARM_UP - 1])
    return { imagesPerSecond, worker, coordinator }
  } finally {
    local.expectEnd()
    await run.close('the measurement is over')
    await local.close()
    await rm(runs, { recursive: true, force: true })
  }
}

/** `convoy bench cluster`: what coordinator and wire leave of the engines' bare speed. */
export async function benchCluster(
  given: Given,
  options: { json?: boolean; rounds?: string },
): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const values = collect(trainSchema, given)
  const config = settle(benchSchema, values)
  const dataset = await loadData(values, display)
  const plan = await planWorkers(config)
  const workers = plan.count
  const rounds = Math.max(1, Number(options.rounds ?? 5))
  const { engine, precision, threads, device = 0, gpu } = config
  const results: { bare: number; cluster: number; worker: number; coordinator: number }[] = []
  for (let round = 1; round <= rounds; round++) {
    display.progress(`round ${round} of ${rounds}`)
    const engines = Array.from({ length: workers }, () => new EngineProcess())
    const request = {
      engine: { engine, precision, threads, device, gpu },
      leaf: config.microBatch,
      seconds: BARE,
    }
    const bare = await Promise.all(engines.map((one) => one.measure(request)))
    for (const one of engines) one.close()
    const { imagesPerSecond, worker, coordinator } = await runCluster(config, dataset, plan)
    const result = {
      bare: bare.reduce((sum, one) => sum + one.imagesPerSecond, 0),
      cluster: imagesPerSecond,
      worker,
      coordinator,
    }
    results.push(result)
    if (options.json) process.stdout.write(`${JSON.stringify({ event: 'round', round, ...result })}\n`)
    else
      display.say(
        `round ${round}: engines alone ${result.bare.toFixed(1)} images/s, cluster ${result.cluster.toFixed(1)}`,
      )
  }
  const summary = {
    event: 'summary',
    clusterVsBare: median(results.map(({ bare, cluster }) => cluster / bare)),
    bareImagesPerSecond: median(results.map(({ bare }) => bare)),
    clusterImagesPerSecond: median(results.map(({ cluster }) => cluster)),
    workers,
    batchSize: config.batchSize,
    workerMegabytes: Math.max(...results.map(({ worker }) => worker)),
    coordinatorMegabytes: Math.max(...results.map(({ coordinator }) => coordinator)),
  }
  if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
  else {
    display.say(
      `${workers} workers: the cluster does ${(100 * summary.clusterVsBare).toFixed(1)} % of the engines' bare speed (${summary.clusterImagesPerSecond.toFixed(1)} of ${summary.bareImagesPerSecond.toFixed(1)} images/s); a worker takes ${summary.workerMegabytes.toFixed(0)} MB, the coordinator ${summary.coordinatorMegabytes.toFixed(0)} MB`,
    )
  }
  return EXIT.done
}
