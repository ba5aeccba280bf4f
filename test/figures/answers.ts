import { z } from 'zod'
import type { Answer } from './figures.ts'

type Lines = readonly unknown[]

/** Three digits that count. */
const digits = (value: number) => String(Number(value.toPrecision(3)))
const times = (ratio: number) => `${ratio < 10 ? ratio.toFixed(2) : digits(ratio)} ×`
const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const speed = (imagesPerSecond: number) => `${digits(imagesPerSecond)} images/s`

/** The lines of an output that a schema takes; throws what is wrong with the last where it takes none. */
function linesOf<T>(lines: Lines, schema: z.ZodType<T>): T[] {
  const taken = lines.map((line) => schema.safeParse(line))
  if (taken.some(({ success }) => success)) return taken.flatMap(({ data }) => data ?? [])
  const why = taken.at(-1)?.error
  throw new Error(
    `this is not the output of the benchmark: ${why ? z.prettifyError(why) : 'it has no line of JSON'}`,
  )
}

const engineLine = z.object({
  event: z.literal('engine'),
  name: z.string(),
  engine: z.string(),
  precision: z.string(),
  threads: z.number(),
  forward: z.literal(false),
  imagesPerSecond: z.number(),
})
const ratio = z.number().nullable()
const engineSummary = z.looseObject({
  event: z.literal('summary'),
  bf16VsTorchBf16: ratio,
  bf16VsTorchF32: ratio,
  f32VsTorchF32: ratio,
  tensorflowVsTorchF32: ratio,
  tensorflowVsOnednnF32: ratio,
  shareOfPeak: ratio,
  wasmVsCpu: ratio,
  torch: z.string().nullable(),
})

function engine(lines: Lines): Answer {
  const summary = linesOf(lines, engineSummary).at(-1)!
  // The first word of "2.15.0+cpu (/usr/bin/python3)".
  const torch = `PyTorch ${summary.torch?.split(/[+ ]/)[0]}`
  /** The best leaf, layout and number of processes, for each engine, precision and number of threads. */
  const best = new Map<string, z.infer<typeof engineLine>>()
  for (const line of linesOf(lines, engineLine)) {
    const key = [line.engine, line.precision, line.threads].join()
    if (line.imagesPerSecond > (best.get(key)?.imagesPerSecond ?? -1)) best.set(key, line)
  }
  const onGpu = Object.entries(summary).flatMap(([key, value]): [string, number | null][] => {
    const [, mode, leaf] = /^cudnnVsTorch(Eager|Compiled)(\d+)$/.exec(key) ?? []
    return mode
      ? [[`cuDNN bf16 beside ${torch} ${mode.toLowerCase()}, leaf ${leaf}`, ratio.parse(value)]]
      : []
  })
  const given = (ratios: [string, number | null][]) =>
    ratios.flatMap(([what, value]) => (value === null ? [] : [{ what, figure: times(value) }]))
  const besideTorch = given([
    [`oneDNN bf16 beside ${torch} bf16`, summary.bf16VsTorchBf16],
    [`oneDNN bf16 beside ${torch} float32`, summary.bf16VsTorchF32],
    [`oneDNN float32 beside ${torch} float32`, summary.f32VsTorchF32],
  ])
  const others = given([
    [`libtensorflow beside ${torch} float32`, summary.tensorflowVsTorchF32],
    ['libtensorflow beside oneDNN float32', summary.tensorflowVsOnednnF32],
    ...onGpu,
    ['oneDNN bf16 beside the rate of a large bf16 matrix product of oneDNN', summary.shareOfPeak],
    ["WebAssembly beside TensorFlow.js's plain `cpu` backend, width 0.25", summary.wasmVsCpu],
  ])
  const speeds = [...best.values()].map((line) => ({ ...line, figure: speed(line.imagesPerSecond) }))
  const ours = Object.entries({ cudnn: 'cuDNN', onednn: 'oneDNN', 'tfjs-wasm': 'WebAssembly' }).flatMap(
    ([engine, title]) => {
      // The benchmark begins with each one's fastest precision, on all cores.
      const first = speeds.find((line) => line.engine === engine)
      if (!first) return []
      const { precision, threads, figure } = first
      const cores = `${threads} ${threads === 1 ? 'thread' : 'threads'}`
      return [{ what: `training, ${title} ${precision}, ${engine === 'cudnn' ? '1 GPU' : cores}`, figure }]
    },
  )
  return {
    columns: ['what', 'figure'],
    rows: [
      ...speeds.map(({ name, figure }) => [name, figure]),
      ...[...besideTorch, ...others].map(({ what, figure }) => [what, figure]),
    ],
    readme: [...ours, ...besideTorch],
  }
}

const clusterSummary = z.object({
  event: z.literal('summary'),
  clusterVsBare: z.number(),
  quartiles: z.tuple([z.number(), z.number()]),
  clusterVsInStep: z.number(),
  inStepVsBare: z.number(),
  bareImagesPerSecond: z.number(),
  clusterImagesPerSecond: z.number(),
  workers: z.number(),
  batchSize: z.number(),
})
/** Of its engines' speed alone, for a cluster. */
const AIM = 0.95

function cluster(lines: Lines): Answer {
  const summary = linesOf(lines, clusterSummary).at(-1)!
  const share = percent(summary.clusterVsBare)
  const [from, to] = summary.quartiles.map(percent)
  const aim = `the aim, ${100 * AIM} %, is ${summary.clusterVsBare < AIM ? 'not ' : ''}reached`
  return {
    columns: ['what', 'figure'],
    rows: [
      [`${summary.workers} engines alone`, speed(summary.bareImagesPerSecond)],
      [
        `a cluster of ${summary.workers} workers, batch ${summary.batchSize}`,
        speed(summary.clusterImagesPerSecond),
      ],
      ['the cluster beside its engines alone', `${share} (${from} to ${to}); ${aim}`],
      [
        'engines that wait for each other after their share of a batch, beside alone',
        percent(summary.inStepVsBare),
      ],
      ['the cluster beside those: what coordinator, wire and update cost', percent(summary.clusterVsInStep)],
    ],
    readme: [
      {
        what: `a cluster of ${summary.workers} workers, beside its engines alone`,
        figure: `${share}; ${aim}`,
      },
    ],
  }
}

const learnSummary = z.object({
  event: z.literal('summary'),
  recipe: z.string(),
  seeds: z.array(z.number()).min(1),
  accuracy: z.number(),
  accuracyWithFlip: z.number(),
  spread: z.number(),
  work: z.number(),
  seconds: z.number(),
  ratioTo350: z.number(),
})

/** Two places, since the paper's 90.92 % has them. */
const exact = (share: number) => `${(100 * share).toFixed(2)} %`

function learn(lines: Lines): Answer {
  const recipes = linesOf(lines, learnSummary)
  const minutes = (seconds: number) => `${(seconds / 60).toFixed(0)} min`
  return {
    columns: [
      'recipe',
      'seeds',
      'accuracy',
      'with flip',
      'largest less smallest',
      'work, epochs',
      'time',
      'less work than 350 epochs',
    ],
    rows: recipes.map((one) => [
      one.recipe,
      String(one.seeds.length),
      exact(one.accuracy),
      exact(one.accuracyWithFlip),
      exact(one.spread),
      digits(one.work),
      minutes(one.seconds),
      times(one.ratioTo350),
    ]),
    readme: recipes.map(({ recipe, seeds, accuracy, work, seconds }) => ({
      what: `test accuracy, recipe ${recipe}, mean of ${seeds.length} ${seeds.length === 1 ? 'seed' : 'seeds'}`,
      figure: `${exact(accuracy)} by the work of ${digits(work)} epochs, in ${minutes(seconds)}`,
    })),
  }
}

/** What a benchmark's lines (`--json`) answer, by question. */
export const answers: Record<string, (lines: Lines) => Answer> = {
  engine,
  'engine-avx2': engine,
  cluster,
  learn,
}
