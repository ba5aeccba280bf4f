import { Convergence, guessingCost } from '@convoy/convergence'
import { prepare, type AugmentationSpec, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { buildModel, freeze, parameterLayout, trainedLayout, type ModelSpec } from '@convoy/model'
import { mkdir, readFile, rm } from 'node:fs/promises'
import { arch, availableParallelism, cpus, hostname, release, totalmem, type } from 'node:os'
import path from 'node:path'
import { setFlagsFromString } from 'node:v8'
import manifest from '../../package.json' with { type: 'json' }
import { CheckpointStore, exists, writeDurably } from './checkpoints.ts'
import { Cluster } from '../cluster/index.ts'
import {
  dataSchema,
  shareOf,
  trainingSchema,
  type CoordinatorConfig,
  type TrainingConfig,
} from '../config.ts'
import type { Machine, Report, RunEvent } from '../events.ts'
import { initialParameters } from './initial.ts'
import {
  LineFile,
  Metrics,
  readMetrics,
  Dashboard,
  History,
  QuietLog,
  TensorBoardLog,
} from '../watching/index.ts'
import { numericsText, type NumericsClass } from '../numerics.ts'
import { CoordinatorServer, isLoopback, type Hall } from '../server/index.ts'
import { parametersSha256, Training, type Rewind, type State, type Test } from '../training/index.ts'

export type DoneEvent = Extract<RunEvent, { event: 'done' }>

/** A run that is open: workers can join; `train` trains. */
export interface Run {
  readonly name: string
  readonly directory: string
  /** Where workers connect. */
  readonly url: string
  readonly training: Training
  readonly cluster: Cluster
  /** How many workers are worth having, for autoscalers: undefined until it was measured, 0 when the run is over. */
  readonly workersWanted: number | undefined
  /** Trains to the end, or until `stop`; either way with a checkpoint of where it got to. Called again, it goes on. */
  train(): Promise<DoneEvent>
  /** Ends the training after the update at hand. */
  stop(): void
  /** Dismisses the workers and lets go of everything. With `retryAfter`, in seconds, they look for a coordinator again. */
  close(message: string, retryAfter?: number): Promise<void>
}

/** A worker may always send so much, in bytes: the logits of test images can be more than a small gradient. */
const SMALLEST_LIMIT = 1 << 20

/** Events that metrics.jsonl keeps; the others are only progress. */
const passing: ReadonlySet<RunEvent['event']> = new Set(['evaluating', 'listening', 'waiting', 'checkpoint'])

/** A name for a run that was given none: the time and the model. */
export function defaultRunName(model: string, now = new Date()): string {
  return `${now.toISOString().slice(0, 19).replace(/[T:]/g, '-')}-${model}`
}

/** What decides the result besides the parameters: two runs with the same text and start give the same bits. */
function identityOf(config: TrainingConfig, dataset: Dataset, init: string | undefined): string {
  // Not which file the weights were in, but which weights.
  return JSON.stringify({ ...config, init, data: dataset.fingerprint })
}

/** Says in words where two identities differ. */
function difference(ours: string, theirs: string): string {
  const a = JSON.parse(ours) as Record<string, unknown>
  const b = JSON.parse(theirs) as Record<string, unknown>
  return Object.keys({ ...a, ...b })
    .filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key]))
    .map((key) => `${key} is ${JSON.stringify(b[key])} there and ${JSON.stringify(a[key])} now`)
    .join('; ')
}

/** The network that a run trains. Throws E_MODEL where it does not fit the data set. */
export function modelFor(config: Omit<TrainingConfig, 'microBatch'>, { shape, classes }: Dataset): ModelSpec {
  const built = buildModel(config.model, {
    input: shape,
    classes: classes.length,
    width: config.width,
    inputDropout: config.inputDropout,
    dropout: config.dropout,
    head: config.head,
  })
  return config.freeze === undefined ? built : freeze(built, config.freeze)
}

/**
 * Opens a run: builds the model, finds the newest good checkpoint, and listens for workers.
 *
 * Throws E_RUN where a run of this name has other settings, and whatever the server throws.
 */
export async function openRun(config: CoordinatorConfig, raw: Dataset, listen: Report): Promise<Run> {
  // Every gradient that arrives is megabytes of fresh buffers beside a small heap, for which V8 by default collects
  // everything about once a message, in the middle of a step. It may wait until the heap has grown three times.
  setFlagsFromString('--heap-growing-percent=200')
  const trainingConfig = trainingSchema.parse(config)
  const { dataset, preprocessing } = await prepare(raw, config.preprocessing, {
    cacheDirectory: config.cache,
    progress: (text) => listen({ event: 'preparing', text }),
  })
  const model = modelFor(config, dataset)
  const { name, directory, made } = await makeFolder(config, model.name)
  const initial = await initialParameters(trainingConfig, model, directory).catch(async (error: unknown) => {
    if (made) await rm(directory, { recursive: true, force: true })
    throw error
  })
  const identity = identityOf(trainingConfig, dataset, initial.from?.sha256)

  const history = new History()
  const metricsFile = path.join(directory, 'metrics.jsonl')
  const convergence = new Convergence(guessingCost(model.classes, model.head))
  const tests: Test[] = []
  // What the run did so far; a new one has no metrics yet.
  await readMetrics(metricsFile, (event, time) => {
    history.hear(event, time)
    if (event.event === 'test') {
      const { step, epoch, testAccuracy } = event
      tests.splice(tests.findLastIndex((test) => test.step < step) + 1, Infinity, {
        step,
        epoch,
        accuracy: testAccuracy,
      })
    }
    // JSON has no NaN.
    if (event.event === 'step')
      convergence.add(event.step, ((event.loss as number | null) ?? NaN) * event.samples, event.samples)
  }).catch(() => {})
  // A disk that refuses must not end the training, but be told.
  const lineFile = (file: string) =>
    new LineFile(path.join(directory, file), (message) => report({ event: 'logFailed', file, message }))
  const metricsLog = lineFile('metrics.jsonl')
  const listeners: Report[] = [listen]
  const tensorboard = config.tensorboard ? new TensorBoardLog(path.join(directory, 'tensorboard')) : undefined
  if (tensorboard) listeners.push((event) => tensorboard.hear(event))
  const log = new QuietLog((event) => {
    if (!passing.has(event.event)) metricsLog.write({ time: Date.now(), ...event })
    for (const hear of listeners) hear(event)
  })
  const counters: Report[] = []
  const report: Report = (event) => {
    for (const count of counters) count(event)
    log.hear(event)
  }

  const store: CheckpointStore = new CheckpointStore(
    path.join(directory, 'checkpoints'),
    config.keepCheckpoints,
    (step) => step % training.stepsPerEpoch === 0,
  )
  const found = await store.newest((file, error) =>
    report({ event: 'checkpointPassedOver', path: file, message: error.message }),
  )
  const saved = found?.checkpoint
  history.checkpoint = saved?.step ?? null
  if (saved && saved.identity !== identity) {
    throw new ConvoyError(
      'E_RUN',
      `the run ${name} was started with other settings: ${difference(identity, saved.identity)}`,
      'Repeat its settings to go on with it, or give this one another --name.',
    )
  }
  await store.clean()
  await keepConfig(directory, config)

  const cluster = new Cluster(report, { verify: config.verify, resumed: saved !== undefined })
  const parameterCount = parameterLayout(model).size
  const gradientSize = trainedLayout(model).size
  const beginning = (): State => ({
    parameters: initial.parameters,
    velocity: new Float32Array(parameterCount),
  })
  const network = {
    model,
    classes: [...dataset.classes],
    // Whitened images are made with the statistics of the whole set, which are not kept.
    ...(preprocessing.kind === 'none' ? {} : { preprocessing }),
  }
  const ledger = config.ledger ? lineFile('ledger.jsonl') : undefined
  const until = config.until === undefined ? undefined : shareOf(config.until)
  const training: Training = new Training({
    config: trainingConfig,
    model,
    dataset,
    cluster,
    report,
    // An accuracy is reached at a test.
    evaluateEvery: until === undefined ? config.evaluateEvery : Math.max(1, config.evaluateEvery),
    until,
    tests,
    worth: config.worth,
    steps: config.steps,
    convergence,
    start: saved ?? beginning(),
    ...(ledger
      ? {
          used: (step, samples, nodes) => {
            ledger.write({ step, epoch: training.progress.epoch, nodes, samples: [...samples] })
          },
        }
      : {}),
  })

  let leaving = false
  const metrics = new Metrics({
    cluster,
    workersWanted: () => (training.finished ? 0 : training.workersWanted.wanted),
  })
  counters.push((event) => metrics.hear(event))
  cluster.onDishonest = (since) =>
    training.rewind(since, 'a worker that took part since then gave wrong gradients')
  cluster.onNotFinite = () =>
    training.diverged({ reason: 'notFinite', message: 'the gradient holds NaN or Inf, whoever computes it' })

  // The run's numerics class: the first worker's. Workers of another are let in, and the result says so.
  let numerics = saved?.numerics ?? null
  let numericsClass: NumericsClass | null = null
  let mixed = saved?.mixed ?? false
  const hall: Hall = {
    cluster,
    refused: (code) => metrics.refused(code),
    largestPayload: Math.max(4 * gradientSize, SMALLEST_LIMIT),
    admit(hello) {
      cluster.checkBan(hello)
      const theirs = numericsText(hello.numerics)
      if (numerics !== null && theirs !== numerics) {
        if (config.reproducible) {
          throw new ConvoyError(
            'E_NUMERICS',
            `this run computes with ${numerics}; this worker with ${theirs}`,
            'Start the worker with the same engine, precision and threads on the same kind of processor, or the coordinator without --reproducible.',
          )
        }
        if (!mixed) report({ event: 'mixed', worker: hello.name, first: numerics, other: theirs })
        mixed = true
      }
      numerics ??= theirs
      numericsClass ??= hello.numerics
      const augmentation: AugmentationSpec = { flip: config.flip, shift: config.shift }
      return {
        run: name,
        model,
        preprocessing,
        augmentation,
        seed: config.seed,
        microBatch: config.microBatch,
        fingerprint: dataset.fingerprint,
        samples: hello.fingerprint !== dataset.fingerprint,
      }
    },
    page(route) {
      const text = (status: number, body: string) => ({ status, type: 'text/plain', body: `${body}\n` })
      switch (route) {
        case '/healthz':
          return text(200, 'ok')
        case '/readyz':
          // Workers may come from the moment that it listens until it says goodbye.
          return leaving ? text(503, 'the run is over') : text(200, 'ready')
        case '/metrics':
          return metrics.text().then((body) => ({ status: 200, type: Metrics.type, body }))
        default:
          return undefined
      }
    },
  }
  const dashboard = new Dashboard({
    run: name,
    runs: config.runs,
    history,
    cluster,
    token: isLoopback(config.host) ? undefined : config.token,
    refused: (code) => metrics.refused(code),
  })
  listeners.push((event) => dashboard.hear(event))
  const server = new CoordinatorServer(config, { ...hall, dashboard })
  const url = await server.listen().catch(async (error: unknown) => {
    await metricsLog.close()
    if (made) await rm(directory, { recursive: true, force: true })
    throw error
  })

  report({
    event: 'start',
    run: name,
    model: model.name,
    parameters: parameterCount,
    data: dataset.name,
    origin: dataset.origin,
    trainImages: dataset.train.count,
    testImages: dataset.test.count,
    epochs: config.epochs,
    stepsPerEpoch: training.stepsPerEpoch,
    ...(config.steps === undefined ? {} : { steps: config.steps }),
    batchSize: training.batchSize,
    seed: config.seed,
    resumedAt: training.progress.step,
    fingerprint: dataset.fingerprint,
    machine: machineHere(),
  })
  if (config.init !== undefined && initial.from) {
    const { format, sha256, table } = initial.from
    const layers = table.map(({ layer, shape, from }) => ({ layer, shape, from: from?.layer ?? null }))
    report({ event: 'initialised', file: config.init, format, sha256, layers })
  }
  if (gradientSize < parameterCount) {
    const layers = model.layers.flatMap((layer) =>
      layer.kind === 'conv2d' && layer.frozen ? [layer.name] : [],
    )
    report({ event: 'frozen', layers, trained: gradientSize, of: parameterCount })
  }
  report({ event: 'listening', url, dashboard: pageAddress(url) })

  let savedStep = saved ? training.progress.step : -1
  let savedAt = performance.now()
  const save = async (): Promise<void> => {
    const { progress, parameters } = training
    const { step } = progress
    savedStep = step
    savedAt = performance.now()
    try {
      const file = await store.write(
        {
          ...progress,
          identity,
          size: parameterCount,
          numerics,
          mixed,
          network,
          parameters: parameters.current.values,
          velocity: training.velocity,
        },
        // What a run goes on from stands in its ledger: the steps after it are done, and noted, again.
        () => ledger?.flush() ?? Promise.resolve(),
      )
      if (file !== undefined) report({ event: 'checkpoint', step, path: file })
    } catch (error) {
      // Training goes on and the last good checkpoint stays; the next one is tried in its turn.
      report({ event: 'checkpointFailed', step, message: (error as Error).message })
    }
  }

  const goBack = async ({ to, rateFactor, reason }: Rewind): Promise<void> => {
    const from = training.progress.step
    const factor = training.progress.rateFactor * rateFactor
    if (rateFactor < 1) {
      training.restore((await store.rewind(to)) ?? beginning())
      training.lowerRate(to, factor)
      // At once, so that a run that is resumed has the new rate too.
      if (training.progress.step === to) await save()
    } else if (to < from && factor < 1) {
      // Whether it was right to lower the rate is in doubt as well.
      await store.rewind(-1)
      training.forgetRates()
      training.restore(beginning())
    } else if (to < from) training.restore((await store.rewind(to)) ?? beginning())
    // Otherwise nothing was applied since: the step at hand is done again.
    const { step } = training.progress
    const now = rateFactor < 1 ? factor : training.progress.rateFactor
    report({ event: 'rolledBack', from, to: step, rateFactor: now, reason })
  }

  return {
    name,
    directory,
    url,
    training,
    cluster,
    get workersWanted() {
      return training.finished ? 0 : training.workersWanted.wanted
    },
    async train() {
      const afterStep = (epochEnded: boolean) => {
        const due = performance.now() - savedAt > 1000 * config.checkpointEvery
        if (epochEnded || (due && !store.busy)) void save()
      }
      for (;;) {
        const rewind = await training.run(afterStep)
        if (!rewind) break
        await goBack(rewind)
      }
      training.goOn()
      if (savedStep !== training.progress.step || store.busy) await save()
      const { progress, parameters } = training
      const done: DoneEvent = {
        event: 'done',
        run: name,
        parametersSha256: parametersSha256(parameters.current.values),
        step: progress.step,
        epoch: progress.epoch,
        imagesPerSecond: training.sessionSeconds > 0 ? training.sessionSamples / training.sessionSeconds : 0,
        trainLoss: Number.isFinite(training.trainLoss) ? training.trainLoss : null,
        testAccuracy: training.testAccuracy ?? training.score?.accuracy ?? null,
        seconds: progress.seconds,
        mixed,
        numerics: numericsClass,
        finished: training.finished,
        ...(until === undefined
          ? {}
          : {
              until: {
                accuracy: until,
                reached: training.reached,
                epochs: progress.epoch,
                seconds: progress.seconds,
                samples: progress.epoch * dataset.train.count + progress.epochSamples,
              },
            }),
      }
      report(done)
      return done
    },
    stop: () => training.stop(),
    async close(message, retryAfter) {
      leaving = true
      cluster.dispose()
      await server.close(message, retryAfter)
      await metricsLog.close()
      await ledger?.close()
      tensorboard?.close()
    },
  }
}

/** Where a browser finds the page of a coordinator at this address; one that listens everywhere is named by its host. */
function pageAddress(url: string): string {
  return `${url.replace(/^ws/, 'http').replace(/\/\/(0\.0\.0\.0|\[::\])/, `//${hostname()}`)}/`
}

/** The folder of the run: the one that was named, there already or not, or else a new one. */
async function makeFolder(
  config: CoordinatorConfig,
  model: string,
): Promise<{ name: string; directory: string; made: boolean }> {
  const usual = config.name ?? defaultRunName(model.replace(/[^\w.-]/g, 'x'))
  try {
    await mkdir(config.runs, { recursive: true })
    for (let n = 1; ; n++) {
      const name = n === 1 ? usual : `${usual}-${n}`
      const directory = path.join(config.runs, name)
      const made = await mkdir(directory).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          if (error.code !== 'EEXIST') throw error
          return false
        },
      )
      if (made || config.name !== undefined) return { name, directory, made }
    }
  } catch (error) {
    throw new ConvoyError(
      'E_RUN',
      `cannot make the folder ${path.join(config.runs, usual)}: ${(error as Error).message}`,
      'Choose another place with --runs DIR.',
    )
  }
}

/** Keeps the settings beside the run, for people and for `convoy evaluate --run`. */
async function keepConfig(directory: string, config: CoordinatorConfig): Promise<void> {
  const file = path.join(directory, 'config.json')
  const keys = [...Object.keys(trainingSchema.shape), ...Object.keys(dataSchema.shape)]
  // Where it listened and with which token is not the run's.
  const shown = Object.fromEntries(Object.entries(config).filter(([key]) => keys.includes(key)))
  if (await exists(file)) return
  await writeDurably(file, Buffer.from(`${JSON.stringify(shown, null, 2)}\n`)).catch((error: Error) => {
    throw new ConvoyError(
      'E_RUN',
      `cannot write ${file}: ${error.message}`,
      'Make room there, or choose another place with --runs DIR.',
    )
  })
}

function machineHere(): Machine {
  return {
    cpu: cpus().at(0)?.model.trim() ?? arch(),
    cores: availableParallelism(),
    memory: totalmem(),
    system: `${type()} ${release()} ${arch()}`,
    node: process.version,
    convoy: manifest.version,
  }
}

/** The settings of a run that was kept. Throws E_RUN where there is none. */
export async function readRunConfig(directory: string): Promise<Partial<CoordinatorConfig>> {
  try {
    return JSON.parse(
      await readFile(path.join(directory, 'config.json'), 'utf8'),
    ) as Partial<CoordinatorConfig>
  } catch (error) {
    throw new ConvoyError(
      'E_RUN',
      `there is no run at ${directory}: ${(error as Error).message}`,
      'Give the name of a folder under runs/, or --runs DIR.',
    )
  }
}
