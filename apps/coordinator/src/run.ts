import { prepare, type AugmentationSpec, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { buildModel, initialise, parameterLayout } from '@convoy/model'
import { createWriteStream } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { CheckpointStore, exists, writeDurably } from './checkpoints.ts'
import { Cluster } from './cluster.ts'
import { dataSchema, trainingSchema, type CoordinatorConfig, type TrainingConfig } from './config.ts'
import type { Report, RunEvent } from './events.ts'
import { numericsText, type NumericsClass } from './numerics.ts'
import { CoordinatorServer, type Hall } from './server.ts'
import { parametersSha256, Training } from './training.ts'

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
  /** Trains to the end, or until `stop`; either way with a checkpoint of where it got to. */
  train(): Promise<DoneEvent>
  /** Ends the training after the update at hand. */
  stop(): void
  /** Dismisses the workers and lets go of everything. With `retryAfter`, in seconds, they look for a coordinator again. */
  close(message: string, retryAfter?: number): Promise<void>
}

/** Events that metrics.jsonl keeps; the others are only progress. */
const passing: ReadonlySet<RunEvent['event']> = new Set(['evaluating', 'listening', 'waiting', 'checkpoint'])

/** A name for a run that was given none: the time and the model. */
export function defaultRunName(model: string, now = new Date()): string {
  return `${now.toISOString().slice(0, 19).replace(/[T:]/g, '-')}-${model}`
}

/** What decides the result besides the parameters: two runs with the same text and start give the same bits. */
function identityOf(config: TrainingConfig, dataset: Dataset): string {
  return JSON.stringify({ ...config, data: dataset.fingerprint })
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

/**
 * Opens a run: builds the model, finds the newest good checkpoint, and listens for workers.
 *
 * Throws E_RUN where a run of this name has other settings, and whatever the server throws.
 */
export async function openRun(config: CoordinatorConfig, raw: Dataset, listen: Report): Promise<Run> {
  const trainingConfig = trainingSchema.parse(config)
  const { dataset, preprocessing } = await prepare(raw, config.preprocessing, {
    cacheDirectory: config.cache,
  })
  const model = buildModel(config.model, {
    input: dataset.shape,
    classes: dataset.classes.length,
    width: config.width,
    inputDropout: config.inputDropout,
    dropout: config.dropout,
    head: config.head,
  })
  const identity = identityOf(trainingConfig, dataset)
  const name = config.name ?? defaultRunName(model.name.replace(/[^\w.-]/g, 'x'))
  const directory = path.join(config.runs, name)
  await makeDirectory(directory)

  const metrics = createWriteStream(path.join(directory, 'metrics.jsonl'), { flags: 'a' })
  // A full disk must not end the training; what was lost is told with the checkpoints.
  metrics.on('error', () => {})
  const report: Report = (event) => {
    if (!passing.has(event.event)) metrics.write(`${JSON.stringify({ time: Date.now(), ...event })}\n`)
    listen(event)
  }

  const store = new CheckpointStore(path.join(directory, 'checkpoints'), config.keepCheckpoints)
  const found = await store.newest((file, error) =>
    report({ event: 'checkpointPassedOver', path: file, message: error.message }),
  )
  const saved = found?.checkpoint
  if (saved && saved.identity !== identity) {
    throw new ConvoyError(
      'E_RUN',
      `the run ${name} was started with other settings: ${difference(identity, saved.identity)}`,
      'Repeat its settings to go on with it, or give this one another --name.',
    )
  }
  await keepConfig(directory, config)

  const cluster = new Cluster(report)
  const parameterCount = parameterLayout(model).size
  const training = new Training({
    config: trainingConfig,
    model,
    dataset,
    cluster,
    report,
    evaluateEvery: config.evaluateEvery,
    worth: config.worth,
    steps: config.steps,
    start: saved ?? {
      parameters: initialise(model, config.initialisation, config.seed),
      velocity: new Float32Array(parameterCount),
    },
  })

  // The run's numerics class: the first worker's. Workers of another are let in, and the result says so.
  let numerics = saved?.numerics ?? null
  let numericsClass: NumericsClass | null = null
  let mixed = saved?.mixed ?? false
  const hall: Hall = {
    cluster,
    largestPayload: 4 * parameterCount,
    admit(hello) {
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
    page: (route) => (route === '/healthz' ? { status: 200, type: 'text/plain', body: 'ok\n' } : undefined),
  }
  const server = new CoordinatorServer(config, hall)
  const url = await server.listen()

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
    batchSize: training.batchSize,
    seed: config.seed,
    resumedAt: training.progress.step,
  })
  report({ event: 'listening', url })

  let savedStep = saved ? training.progress.step : -1
  let savedAt = performance.now()
  const save = async (): Promise<void> => {
    const { progress, parameters, optimizer } = training
    const { step } = progress
    savedStep = step
    savedAt = performance.now()
    try {
      const file = await store.write({
        ...progress,
        identity,
        size: parameterCount,
        numerics,
        mixed,
        parameters: parameters.current.values,
        velocity: optimizer.velocity,
      })
      report({ event: 'checkpoint', step, path: file })
    } catch (error) {
      // Training goes on and the last good checkpoint stays; the next one is tried in its turn.
      report({ event: 'checkpointFailed', step, message: (error as Error).message })
    }
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
      await training.run((epochEnded) => {
        const due = epochEnded || performance.now() - savedAt > 1000 * config.checkpointEvery
        if (due && !store.busy) void save()
      })
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
        testAccuracy: training.score?.accuracy ?? null,
        seconds: progress.seconds,
        mixed,
        numerics: numericsClass,
        finished: training.finished,
      }
      report(done)
      return done
    },
    stop: () => training.stop(),
    async close(message, retryAfter) {
      cluster.dispose()
      await server.close(message, retryAfter)
      await new Promise<void>((resolve) => metrics.end(() => resolve()))
    },
  }
}

async function makeDirectory(directory: string): Promise<void> {
  try {
    await mkdir(directory, { recursive: true })
  } catch (error) {
    throw new ConvoyError(
      'E_RUN',
      `cannot make the folder ${directory}: ${(error as Error).message}`,
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
  if (!(await exists(file))) await writeDurably(file, Buffer.from(`${JSON.stringify(shown, null, 2)}\n`))
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
