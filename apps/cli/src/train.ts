import {
  coordinatorSchema,
  modelFor,
  openRun,
  recipes,
  type CoordinatorConfig,
  type DoneEvent,
  type RecipeName,
  type Run,
} from '@convoy/coordinator'
import type { Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { once } from 'node:events'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import type { Logger } from 'pino'
import type { z } from 'zod'
import { loadData } from './dataset.ts'
import { Display, styleFor } from './display.ts'
import { LocalWorkers, planWorkers } from './local.ts'
import { besideOnednn } from './onednn.ts'
import { EXIT, trainSchema } from './schemas.ts'
import { collect, pick, settle, type Given } from './options.ts'

/** How long workers wait before they look for a coordinator that was stopped by SIGTERM, in seconds. */
const RETURN = 1
/** What workers are told of a run that is over. */
const OVER = 'the run is over'

interface Options {
  json?: boolean
  verbose?: boolean
  recipe?: string
  resume?: boolean
  /** The log, where it is JSON lines. */
  logger?: Logger | undefined
}

type Values = Record<string, unknown>

function recipeOf(name: string): Values {
  if (Object.hasOwn(recipes, name)) return { ...recipes[name as RecipeName].options }
  throw new ConvoyError(
    'E_USAGE',
    `no recipe is called ${name}`,
    `Use one of: ${Object.keys(recipes).join(', ')}.`,
  )
}

/** The newest run under a folder whose metrics do not end in a finished `done`. Throws E_RUN where there is none. */
async function newestUnfinished(runs: string): Promise<string> {
  const found: { name: string; at: number }[] = []
  for (const name of await readdir(runs).catch(() => [])) {
    const file = path.join(runs, name, 'metrics.jsonl')
    const text = await readFile(file, 'utf8').catch(() => undefined)
    if (text === undefined) continue
    const last = text.trimEnd().split('\n').at(-1) ?? ''
    if (!/"event":"done".*"finished":true/.test(last)) found.push({ name, at: (await stat(file)).mtimeMs })
  }
  const newest = found.sort((a, b) => b.at - a.at)[0]
  if (newest) return newest.name
  throw new ConvoyError('E_RUN', `there is no unfinished run under ${runs}`, 'Start one without --resume.')
}

/** Puts together what was set, the recipe and, for a run that goes on, its own settings. */
async function settings(
  given: Given,
  options: Options,
  schema: typeof trainSchema,
): Promise<{ values: Values; resumed: boolean }> {
  let set = collect(schema, given)
  if (options.resume) set = { ...set, name: await newestUnfinished(String(set['runs'] ?? 'runs')) }
  if (set['name'] !== undefined) {
    // A run that exists brings its own settings; what is set now still wins (and is refused if it changes the result).
    const file = path.join(String(set['runs'] ?? 'runs'), String(set['name']), 'config.json')
    const kept = await readFile(file, 'utf8').then(
      (text) => JSON.parse(text) as Values,
      () => undefined,
    )
    if (kept) {
      // What was measured when the run began stays.
      if (set['microBatch'] === 'auto') delete set['microBatch']
      return { values: { ...kept, ...set }, resumed: true }
    }
  }
  return { values: { ...recipeOf(options.recipe ?? 'keras'), ...set }, resumed: false }
}

/** How a training that was watched ended. */
interface Watched {
  readonly done: DoneEvent
  /** The signal that ended it early. */
  readonly signal: NodeJS.Signals | undefined
}

/** Trains while the signals are watched: the first Ctrl-C or SIGTERM saves and ends, the second ends at once. */
async function trainWatched(run: Run, display: Display): Promise<Watched> {
  let first: NodeJS.Signals | undefined
  const interrupt = (signal: NodeJS.Signals) => {
    if (first) process.exit(EXIT.interrupted)
    first = signal
    display.say('stopping: writing a checkpoint (once more to end at once)')
    run.stop()
  }
  process.on('SIGINT', interrupt)
  process.on('SIGTERM', interrupt)
  try {
    const done = await run.train()
    return { done, signal: first }
  } finally {
    process.off('SIGINT', interrupt)
    process.off('SIGTERM', interrupt)
  }
}

/** SIGTERM is a supervisor's way to stop a program, and to stop with a checkpoint is what it asked for; Ctrl-C is a person's. */
function exitCode({ done, signal }: Watched): number {
  return signal === 'SIGINT' && !done.finished ? EXIT.interrupted : EXIT.done
}

/** Options that the demo's settings may not go with: who gives one is not told of others that were never given. */
const WITHOUT_DEMO = [
  'imageSize',
  'preprocessing',
  'flip',
  'optimizer',
  'parametrisation',
  'weightDecay',
  'nesterov',
]

/** `convoy train`: a whole local cluster. */
export async function train(given: Given, options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout, options.logger)
  const { values: set, resumed } = await settings(given, options, trainSchema)
  let values = set
  let dataset = await besideOnednn(settle(trainSchema, values), display, () => loadData(values, display))
  // Where nobody chose a data set and none is to be had, a first run shows in minutes that it works.
  const nothingChosen = !resumed && options.recipe === undefined && values['data'] === undefined
  const demo =
    nothingChosen && dataset.name === 'synthetic' && WITHOUT_DEMO.every((key) => values[key] === undefined)
  if (demo) {
    values = { ...recipes.demo.options, ...collect(trainSchema, given) }
    dataset = await loadData(values, display)
    display.say(`recipe     demo: ${recipes.demo.description}`)
  }
  // What `auto` found is what the run goes on with.
  if (nothingChosen) values['data'] = dataset.name
  const settled = settle(trainSchema, values)
  const plan = await planWorkers(settled)
  if (plan.note !== undefined) display.say(`workers    ${plan.note}`)
  const onGpus = plan.gpus > 0 && values['microBatch'] === undefined
  const microBatch = onGpus ? 'auto' : settled.microBatch
  const config = {
    ...settled,
    microBatch: microBatch === 'auto' ? await fastLeaf(settled, dataset, plan, display) : microBatch,
  }
  const run = await openOnFreePort(config, dataset, display, 'port' in values)
  let failure: ConvoyError | undefined
  const workers = new LocalWorkers(run.url, config, config.token, (error) => {
    failure ??= error
    run.stop()
  })
  workers.start(plan)
  try {
    const watched = await trainWatched(run, display)
    if (failure) throw failure
    display.say(watched.signal ? resumeHint(run) : nextThing(run, demo))
    return exitCode(watched)
  } finally {
    workers.expectEnd()
    await run.close(OVER)
    await workers.close()
  }
}

/** The leaf size that suits this machine's engine. */
async function fastLeaf(
  config: z.infer<typeof trainSchema>,
  dataset: Dataset,
  { count, gpus }: { count: number; gpus: number },
  display: Display,
): Promise<number> {
  // Loaded here only: a coordinator's image has no engines.
  const { leafSizes, measureLeaves, smallestGood } = await import('./micro-batch.ts')
  const { engine, precision, threads, device = 0, gpu, batchSize } = config
  const batch = batchSize === 'full' ? dataset.train.count : Math.min(batchSize, dataset.train.count)
  // In a round, whoever computes has a replica's batches to itself.
  const sizes = leafSizes(batch, config.replicas === undefined ? count : 1, gpus > 0)
  const choice = { engine, precision, threads, device, gpu }
  const speeds = await measureLeaves(
    choice,
    modelFor(config, dataset),
    sizes,
    (text) => display.progress(text),
    (text) => display.say(text),
  )
  const leaf = smallestGood(speeds)
  const table = [...speeds].map(([size, speed]) => `${size}: ${speed.toFixed(0)}`).join(', ')
  display.say(
    `micro-batch ${leaf}, measured here (images/s by leaf: ${table}); it decides the bits: name it to repeat them`,
  )
  return leaf
}

function resumeHint(run: Run): string {
  return `go on with ./convoy train --name ${run.name}`
}

function nextThing(run: Run, demo: boolean): string {
  return demo
    ? 'next       train on real images: ./convoy train --data cifar10 --recipe fast, or --data FOLDER of train/<class>/*, test/<class>/*'
    : `next       look at it class by class: ./convoy evaluate --run ${run.name}`
}

/** Opens the run; where the usual port is taken and none was asked for, on a free one. */
async function openOnFreePort(
  config: CoordinatorConfig,
  dataset: Dataset,
  display: Display,
  asked: boolean,
): Promise<Run> {
  const report = display.show.bind(display)
  try {
    return await openRun(config, dataset, report)
  } catch (error) {
    if (asked || !(error instanceof ConvoyError) || error.code !== 'E_PORT_IN_USE') throw error
    return openRun({ ...config, port: 0 }, dataset, report)
  }
}

/** `convoy coordinator`: listens, and trains with whatever workers come. */
export async function coordinate(given: Given, options: Options): Promise<number> {
  // Until there is something to save, there is nothing to wait for.
  const nothingYet = () => process.exit(EXIT.done)
  process.on('SIGTERM', nothingYet)
  const display = new Display(styleFor(options.json), process.stdout, options.logger)
  const { values } = await settings(given, options, trainSchema)
  const config = settle(coordinatorSchema, pick(values, Object.keys(coordinatorSchema.shape)))
  const dataset = await loadData(values, display)
  const run = await openRun(config, dataset, display.show.bind(display))
  display.say(
    `start workers with: ./convoy worker --coordinator ${run.url}${config.token ? ' --token …' : ''}`,
  )
  let comesBack = false
  try {
    const training = trainWatched(run, display)
    process.off('SIGTERM', nothingYet)
    const watched = await training
    // Whoever sends SIGTERM usually starts this again (a moved pod, an upgrade): the workers look for it until it is back.
    comesBack = watched.signal === 'SIGTERM' && !watched.done.finished
    display.say(watched.signal ? `go on with ./convoy coordinator --name ${run.name}` : nextThing(run, false))
    if (config.stay && !watched.signal) {
      if (config.dismiss) run.dismiss(OVER)
      display.say('the run is over; staying until SIGTERM or Ctrl-C')
      await Promise.race([once(process, 'SIGTERM'), once(process, 'SIGINT')])
    }
    return exitCode(watched)
  } finally {
    if (comesBack) await run.close('the coordinator is stopping; it will be looked for', RETURN)
    else await run.close(OVER)
  }
}
