import {
  dataSchema,
  readMetrics,
  recipes,
  trainingSchema,
  type DoneEvent,
  type Recipe,
} from '@convoy/coordinator'
import { parseSizes, workOf } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { engineSchema } from '@convoy/worker/config'
import { createHash } from 'node:crypto'
import path from 'node:path'
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { z } from 'zod'
import { chart } from '../../apps/cli/src/chart.ts'
import { collect, flagOf, pick, settle } from '../../apps/cli/src/options.ts'
import { trainSchema } from '../../apps/cli/src/schemas.ts'
import { standalone } from '../svg.ts'

/** Options of `convoy train` by key; one that is undefined is left to its default. */
export type Options = Record<string, unknown>

/** What the harness sets itself, or what would keep a run from ending. */
const { name: _name, runs: _runs, seed: _seed, port: _port, stay: _stay, ...free } = trainSchema.shape
const freeSchema = z.object(free)

export interface Settings {
  readonly recipe: string
  readonly seeds: readonly number[]
  /** Whether the recipe's parts are turned off, or others on, one at a time. */
  readonly parts: boolean
  readonly runs: string
  readonly json: boolean
  readonly svg: string | undefined
  readonly help: boolean
  /** Options of `convoy train` that were given. */
  readonly given: Options
}

function usage(message: string, remedy = 'See --help for what there is.'): ConvoyError {
  return new ConvoyError('E_USAGE', message, remedy)
}

/** Reads the command line. Throws E_USAGE. */
export function parse(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Settings {
  const options: ParseArgsConfig['options'] = {
    recipe: { type: 'string', default: 'fast' },
    seeds: { type: 'string' },
    parts: { type: 'boolean', default: false },
    runs: { type: 'string', default: path.join('runs', 'learn') },
    svg: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  }
  for (const [key, field] of Object.entries(free)) {
    const boolean = field instanceof z.ZodType && isBoolean(field)
    options[flagOf(key)] = { type: boolean ? 'boolean' : 'string' }
  }
  let values: Record<string, unknown>
  try {
    // What stands behind `--` is for `convoy train`, as is all that the harness has not got itself.
    const config = { args: args.filter((arg) => arg !== '--'), options, allowNegative: true, strict: true }
    values = parseArgs(config).values
  } catch (error) {
    throw usage((error as Error).message)
  }
  const flags = Object.fromEntries(Object.keys(free).map((key) => [key, values[flagOf(key)]]))
  const parts = values['parts'] === true
  const recipe = String(values['recipe'])
  if (!Object.hasOwn(recipes, recipe))
    throw usage(`no recipe is called ${recipe}`, `Use one of: ${Object.keys(recipes).join(', ')}.`)
  if (parts && values['svg'] !== undefined) throw usage('--svg draws whole runs, not --parts')
  const given = {
    data: environment['CONVOY_DATA'] || 'cifar10',
    ...(parts ? { holdOut: 5_000 } : {}),
    ...collect(freeSchema, { flags, environment: {} }),
  }
  settle(trainSchema, { ...optionsOf(recipe), ...given })
  return {
    ...{ recipe, parts, given, runs: String(values['runs']) },
    seeds: parseSeeds(String(values['seeds'] ?? (parts ? '1,2' : '1,2,3'))),
    json: values['json'] === true,
    svg: values['svg'] as string | undefined,
    help: values['help'] === true,
  }
}

function isBoolean(field: z.ZodType): boolean {
  if (field instanceof z.ZodDefault || field instanceof z.ZodOptional)
    return isBoolean(field.unwrap() as z.ZodType)
  return field instanceof z.ZodBoolean
}

function parseSeeds(text: string): number[] {
  const seeds = text.split(',').map((one) => (/^\d+$/.test(one) ? Number(one) : NaN))
  if (!seeds.every(Number.isSafeInteger) || new Set(seeds).size < seeds.length)
    throw usage(`--seeds ${text} is no list of seeds`, 'Give different whole numbers, as in 1,2,3.')
  return seeds
}

/** The options of a recipe. */
export const optionsOf = (recipe: string): Options => ({
  ...(recipes as Record<string, Recipe>)[recipe].options,
})

/** Flags of `convoy train` that set just these options. */
export function flags(options: Options): string[] {
  return Object.entries(options).flatMap(([key, value]) => {
    if (value === undefined) return []
    if (typeof value === 'boolean') return [`--${value ? '' : 'no-'}${flagOf(key)}`]
    return [`--${flagOf(key)}`, String(value)]
  })
}

const decisive = [
  ...[trainingSchema, dataSchema, engineSchema].flatMap((schema) => Object.keys(schema.shape)),
  ...['steps', 'until'],
].filter((key) => key !== 'cache' && key !== 'seed')

/** A run's name: what it is of, its seed, and a digest of all else that decides its result. */
export function runName(what: string, seed: number, options: Options): string {
  const settled = JSON.stringify(pick(settle(trainSchema, options), decisive))
  const digest = createHash('sha256').update(settled).digest('hex').slice(0, 8)
  return `${what.replaceAll(' ', '-')}-seed${seed}-${digest}`
}

/** What `--parts` changes in a recipe, by name; undefined takes an option out. */
export const changes: Readonly<Record<string, Options>> = {
  sgd: { ...{ optimizer: 'sgd', headRate: undefined }, ...sgd() },
  'standardised sgd': {
    ...{ optimizer: 'sgd', headRate: undefined, parametrisation: 'standardised' },
    ...sgd(),
  },
  'no whitened start': { whitenedStart: undefined },
  'no identity start': { identityStart: undefined },
  'no label smoothing': { labelSmoothing: undefined },
  'random flip': { flip: true, alternatingFlip: undefined },
  'no shift': { shift: 0 },
  'shift 4': { shift: 4 },
  'cutout 6': { cutout: 6 },
  'full size only': { sizes: undefined },
  crops: { resize: 'crop' },
  'bias rate 0.3': { biasRate: 0.3 },
  'batch 256': { batchSize: 256 },
}

/** Gradients that are not made orthogonal want a rate of their own, that they rise to. */
function sgd(): Options {
  return { learningRate: 0.05, warmup: 0.15, weightDecay: 5e-4 }
}

/** The work of an epoch, in full-size ones. */
function workOfEpoch(options: Options): number {
  const { sizes, imageSize, preprocessing } = settle(trainSchema, options)
  const stages = parseSizes(sizes ?? String(imageSize), [imageSize, imageSize, 3], preprocessing)
  return workOf(stages, { totalSteps: 1_000_000, stepsPerEpoch: 1_000_000 })
}

/** The options with as many epochs as come nearest to the work of so many at full size; at least one. */
export function withWork(options: Options, work: number): Options {
  return { ...options, epochs: Math.max(1, Math.round(work / workOfEpoch(options))) }
}

/** The work of `--parts`, in full-size epochs. */
const BUDGET = 2

export interface Part {
  readonly name: string
  readonly changed: Options
  readonly options: Options
}

/** The whole recipe and then each part, all at about one work; a part that changes nothing is left out. */
export function partsOf(recipe: string, given: Options): Part[] {
  const base = { ...optionsOf(recipe), ...given }
  const whole = given['epochs'] === undefined ? withWork(base, BUDGET) : base
  const work = Number(whole['epochs']) * workOfEpoch(whole)
  const seen = new Set<string>()
  const all: [string, Options][] = [['whole', {}], ...Object.entries(changes)]
  return all.flatMap(([name, changed]) => {
    const changedOptions = { ...whole, ...changed }
    const options = name === 'whole' ? whole : withWork(changedOptions, work)
    const same = runName('', 0, options)
    if (seen.has(same)) return []
    seen.add(same)
    return [{ name, changed, options }]
  })
}

/** A run as far as it got. */
export interface Run {
  /** How it ended, where it is finished. */
  readonly done: DoneEvent | undefined
  /** Images that it learned from, each as often as it did. */
  readonly images: number
  /** Its tests, over work in full-size epochs. */
  readonly tests: readonly { readonly work: number; readonly accuracy: number }[]
}

/** Reads what a run did; one that was not begun did nothing. */
export async function readRun(directory: string): Promise<Run> {
  let done: DoneEvent | undefined
  // By step: what was after the checkpoint that a run went on from is done again.
  const steps = new Map<number, { samples: number; work: number }>()
  const tests = new Map<number, number>()
  await readMetrics(path.join(directory, 'metrics.jsonl'), (event) => {
    if (event.event === 'step') steps.set(event.step, { samples: event.samples, work: event.work ?? NaN })
    else if (event.event === 'test') tests.set(event.step, event.testAccuracy)
    else if (event.event === 'done') done = event.finished ? event : undefined
  }).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  return {
    done,
    images: [...steps.values()].reduce((sum, { samples }) => sum + samples, 0),
    tests: [...tests].map(([step, accuracy]) => ({ work: steps.get(step)?.work ?? 0, accuracy })),
  }
}

/** What one whole run came to. */
export interface Result {
  readonly seed: number
  readonly epochs: number
  /** Full-size epochs. */
  readonly work: number
  readonly images: number
  /** Of training. */
  readonly seconds: number
  /** Share of the test images, each as it is. */
  readonly accuracy: number
  /** The same, by the mean of each image's logits and its mirror image's. */
  readonly accuracyWithFlip: number
  readonly parametersSha256: string
}

export const mean = (numbers: readonly number[]) =>
  numbers.reduce((sum, one) => sum + one, 0) / numbers.length

/** All seeds of a recipe together. */
export function summarise(recipe: string, results: readonly Result[]) {
  const over = (of: (one: Result) => number) => mean(results.map(of))
  const accuracies = results.map(({ accuracy }) => accuracy)
  const work = over((one) => one.work)
  return {
    event: 'summary',
    recipe,
    seeds: results.map(({ seed }) => seed),
    accuracy: over((one) => one.accuracy),
    accuracyWithFlip: over((one) => one.accuracyWithFlip),
    spread: Math.max(...accuracies) - Math.min(...accuracies),
    work,
    seconds: over((one) => one.seconds),
    ratioTo350: 350 / work,
  }
}

/** Seconds until a run is done that came so far in so many. */
export function timeToGo(seconds: number, begun: number, work: number, total: number): number {
  return work > begun ? (seconds * (total - work)) / (work - begun) : Infinity
}

const COLOURS = ['#1f62c9', '#c05a0b', '#2e7d4f', '#8a3fa0', '#a8323a']

/** Accuracy over work, a line a seed; undefined where nothing was tested. */
export function drawing(recipe: string, runs: readonly { seed: number; run: Run }[]): string | undefined {
  const series = runs.map(({ seed, run: { tests } }, i) => ({
    name: `seed ${seed}`,
    colour: COLOURS[i % COLOURS.length],
    steps: tests.map(({ work }) => work),
    values: tests.map(({ accuracy }) => 100 * accuracy),
    dots: true,
  }))
  const figure = chart(series, {
    title: `Test accuracy of ${recipe}`,
    show: (value) => `${value} %`,
    mark: { level: 90.92, name: 'the paper, 90.92 %' },
  })
  const names = series.map(({ name, colour }) => `<tspan fill="${colour}">${name}</tspan>`)
  const legend = `${recipe}, over full-size epochs of work: ${names.join(', ')}`
  return figure && standalone(figure, legend, 'full-size epochs of work')
}
