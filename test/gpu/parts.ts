import { recipes } from '@convoy/coordinator'
import { differences, drawLeaf, referenceGradient, type Engine } from '@convoy/engine'
import { heads, kinds, small } from '@convoy/engine/cases'
import { createCudnnEngine } from '@convoy/engine-cudnn'
import { createEngine } from '@convoy/engines'
import { buildModel, modelNames, trainedLayout, type ModelSpec } from '@convoy/model'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import path from 'node:path'
import { measure } from '../../apps/cli/src/measure-engine.ts'
import { median } from '../../apps/cli/src/statistics.ts'
import { startTorch } from '../../apps/cli/src/torch-peer.ts'
import { Convoy } from '../convoy.ts'

/** What a part of the proof knows. */
export interface Ground {
  /** Where runs and tables go. */
  readonly out: string
  /** Real images. */
  readonly data: string | undefined
  /** How often a speed is measured. */
  readonly rounds: number
  /** Stands in for a GPU: everything is small then, and says nothing of speed. */
  readonly simulated: boolean
}

export interface Part {
  readonly what: string
  /** After which it has failed. All together are less than 25. */
  readonly minutes: number
  /** Gives its figures. Throws LeftOut where something is not there, another Error where the proof fails. */
  readonly run: (ground: Ground) => Promise<Record<string, unknown>>
}

/** What a part needs is not there. */
export class LeftOut extends Error {}

const precisions = ['float32', 'tf32', 'bf16'] as const
type Precision = (typeof precisions)[number]

/** Runs something with an engine, which is disposed of after it. */
async function using<T>(precision: Precision, act: (engine: Engine) => Promise<T>): Promise<T> {
  const engine = await createCudnnEngine({ precision, device: 0 })
  try {
    return await act(engine)
  } finally {
    engine.dispose()
  }
}

async function identify(): Promise<Record<string, unknown>> {
  const choice = { engine: 'cudnn', precision: 'auto', threads: 1, device: 0, gpu: true } as const
  const engine = await createEngine(choice).catch((error: Error) => {
    throw new LeftOut(error.message)
  })
  engine.dispose()
  return { description: engine.description, ...engine.numerics }
}

/**
 * How far off a gradient of eight images of noise may be. What rounding costs is mostly ReLUs that turn over, each with its whole
 * gradient; so the median of three such leaves counts.
 */
const limit = (precision: Precision, model: ModelSpec): number => {
  const deep = model.layers.length > 8
  return { float32: 1e-5, tf32: deep ? 3e-2 : 2e-2, bf16: deep ? 1.2e-1 : 2e-2 }[precision]
}

async function gradients({ simulated }: Ground): Promise<Record<string, unknown>> {
  const models = [
    ...Object.entries(kinds).map(([name, layers]) => small(name, layers)),
    ...heads,
    ...modelNames.map((name) =>
      buildModel(name, { input: [16, 16, 3], classes: 10, inputDropout: 0.2, width: 0.125 }),
    ),
    ...(simulated ? [] : [buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.5 })]),
  ]
  const largest: Record<string, number> = {}
  const wrong: string[] = []
  for (const precision of precisions) {
    await using(precision, async (engine) => {
      for (const model of models) {
        const compiled = await engine.compile(model, 8)
        const gradient = new Float32Array(trainedLayout(model).size)
        const offs: number[] = []
        for (const seed of precision === 'float32' ? [1] : [3, 4, 5]) {
          const { parameters, batch, masks } = drawLeaf(model, 8, seed)
          const expected = referenceGradient(model, parameters, batch, masks)
          compiled.load(parameters)
          await compiled.gradient(batch, masks, gradient)
          offs.push(differences(gradient, expected.gradient).relative)
        }
        compiled.dispose()
        const off = median(offs)
        largest[precision] = Math.max(largest[precision] ?? 0, off)
        if (!(off <= limit(precision, model)))
          wrong.push(`${model.name} in ${precision} by ${off.toExponential(1)}`)
      }
    })
  }
  if (wrong.length > 0) throw new Error(`${wrong.length} gradients are off: ${wrong.join(', ')}`)
  return { models: models.length, largest }
}

/** The SHA-256 of the gradients of three leaves. */
export async function hashGradients(precision: Precision): Promise<string> {
  return using(precision, async (engine) => {
    const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.25 })
    const compiled = await engine.compile(model, 4)
    const hash = createHash('sha256')
    for (const seed of [1, 2, 3]) {
      const { parameters, batch, masks } = drawLeaf(model, 4, seed)
      const gradient = new Float32Array(parameters.length)
      compiled.load(parameters)
      await compiled.gradient(batch, masks, gradient)
      hash.update(new Uint8Array(gradient.buffer))
    }
    return hash.digest('hex')
  })
}

const program = process.argv[1]

async function processes(): Promise<Record<string, unknown>> {
  const found: Record<string, string> = {}
  for (const precision of precisions) {
    const hashes = Array.from({ length: 5 }, () =>
      execFileSync(process.execPath, [program, 'hash', precision], { encoding: 'utf8' }).trim(),
    )
    const different = new Set(hashes).size
    if (different > 1) throw new Error(`five processes gave ${different} different gradients in ${precision}`)
    found[precision] = hashes[0]
  }
  return found
}

async function sanitizer(): Promise<Record<string, unknown>> {
  const tool = 'compute-sanitizer'
  if (spawnSync(tool, ['--version']).status !== 0) throw new LeftOut(`${tool} is not installed`)
  for (const precision of precisions) {
    const run = spawnSync(tool, ['--error-exitcode', '99', process.execPath, program, 'hash', precision], {
      encoding: 'utf8',
    })
    process.stdout.write(`${run.stdout}${run.stderr}`)
    if (run.status !== 0) throw new Error(`${tool} ended with ${run.status} in ${precision}`)
  }
  return { errors: 0 }
}

async function speed({ rounds, simulated }: Ground): Promise<Record<string, unknown>> {
  const model = simulated
    ? buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125 })
    : buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })
  const batches = simulated ? [4, 8] : [128, 512, 2048]
  const seconds = simulated ? 0 : 1
  const torch = await startTorch()
  const cases: { name: string; run: () => Promise<number>; results: number[] }[] = []
  for (const leaf of batches) {
    for (const precision of leaf === 512 || simulated ? precisions : (['bf16'] as const)) {
      const engine = { engine: 'cudnn', precision, threads: 1, device: 0, gpu: true } as const
      const run = async () => (await measure({ engine, leaf, seconds, model })).imagesPerSecond
      cases.push({ name: `cudnn ${precision} ${leaf}`, run, results: [] })
    }
    for (const mode of torch?.cuda ? ['eager', 'compiled'] : []) {
      const run = () => torch!.ask(`1 ${leaf} bf16 channels_last ${seconds} cuda ${mode}`)
      cases.push({ name: `PyTorch ${mode} bf16 channels_last ${leaf}`, run, results: [] })
    }
  }
  for (let round = 0; round < rounds; round++) for (const one of cases) one.results.push(await one.run())
  const torchName = torch?.cuda
    ? torch.version
    : `left out: ${torch ? `${torch.version} sees no GPU` : 'no Python has it'}`
  torch?.close()
  return {
    imagesPerSecond: Object.fromEntries(cases.map(({ name, results }) => [name, median(results)])),
    torch: torchName,
  }
}

/** Runs `convoy train` to its end. */
async function run(...args: string[]) {
  const convoy = new Convoy(['train', '--engine', 'cudnn', '--port', '0', '--json', ...args], {
    CONVOY_CUDA: process.env['CONVOY_CUDA'],
    CONVOY_CACHE: process.env['CONVOY_CACHE'],
  })
  const done = await convoy.done()
  process.stdout.write(convoy.text)
  const { imagesPerSecond, testAccuracy, seconds, finished, numerics, parametersSha256, step } = done
  return { imagesPerSecond, testAccuracy, seconds, finished, numerics, parametersSha256, step }
}

const tiny = ['--limit-train', '96', '--limit-test', '20', '--width', '0.125']

async function train({ out, data, simulated }: Ground): Promise<Record<string, unknown>> {
  if (data === undefined && !simulated) throw new LeftOut('no real images: name them with --data')
  const given = simulated ? [...tiny, '--epochs', '2', '--batch-size', '32'] : []
  // A run of this name that was broken off goes on.
  const done = await run(
    '--recipe',
    'fast',
    '--data',
    data ?? 'synthetic',
    ...given,
    '--runs',
    out,
    '--name',
    'fast',
  )
  if (done.finished !== true) throw new Error('the run did not come to its end')
  const wanted = recipes.fast.expected.accuracy - 0.02
  if (!simulated && Number(done.testAccuracy) < wanted)
    throw new Error(`accuracy ${String(done.testAccuracy)}, and ${wanted.toFixed(3)} was expected at least`)
  return done
}

/** Milliseconds of the parts of a step, as the worker sees them. */
async function time({ simulated }: Ground): Promise<Record<string, unknown>> {
  const count = simulated ? 4 : 512
  const model = simulated
    ? buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125 })
    : buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })
  return using('bf16', async (engine) => {
    const leaves = [1, 2].map((seed) => drawLeaf(model, count, seed))
    const [{ parameters, batch, masks }] = leaves
    const compiled = await engine.compile(model, count)
    const gradient = new Float32Array(parameters.length)
    const logits = new Float32Array(count * model.classes)
    const median5 = async (act: () => unknown) => {
      const times: number[] = []
      for (let i = 0; i < (simulated ? 2 : 22); i++) {
        const started = performance.now()
        await act()
        times.push(performance.now() - started)
      }
      return median(times.slice(1))
    }
    compiled.load(parameters)
    const forward = await median5(() => compiled.predict(batch.images, count, logits))
    const leaf = await median5(() => compiled.gradient(batch, masks, gradient))
    const withParameters = await median5(() => {
      compiled.load(parameters)
      return compiled.gradient(batch, masks, gradient)
    })
    // With the next leaf begun before this one is waited for, as a worker does.
    let next = 0
    compiled.begin?.(leaves[0].batch, leaves[0].masks)
    const begun = await median5(() => {
      const now = leaves[next % 2]
      const after = leaves[++next % 2]
      compiled.begin?.(after.batch, after.masks)
      return compiled.gradient(now.batch, now.masks, gradient)
    })
    const milliseconds = {
      forward,
      leaf,
      backward: leaf - forward,
      parametersUp: withParameters - leaf,
      leafBegun: begun,
    }
    return { leaf: count, milliseconds, nsys: profile(simulated) }
  })
}

/** NVIDIA's own table of kernels, where its profiler is installed. */
function profile(simulated: boolean): string {
  if (simulated || spawnSync('nsys', ['--version']).status !== 0) return 'left out: nsys is not installed'
  const args = [
    'profile',
    '--stats=true',
    '--force-overwrite=true',
    '-o',
    'nsys',
    process.execPath,
    program,
    'hash',
    'bf16',
  ]
  const { stdout, status } = spawnSync('nsys', args, { encoding: 'utf8' })
  process.stdout.write(stdout)
  return status === 0 ? 'in time.log' : `nsys ended with ${status}`
}

/** Two workers on one GPU, in steps and in rounds. */
async function rounds({ out, data, simulated }: Ground): Promise<Record<string, unknown>> {
  const given = simulated
    ? [...tiny, '--batch-size', '16', '--micro-batch', '8']
    : ['--batch-size', '512', '--micro-batch', '256']
  const common = [
    '--data',
    data ?? 'synthetic',
    ...given,
    '--workers',
    '2',
    '--device',
    '0',
    '--evaluate-every',
    '0',
    '--runs',
    out,
  ]
  const stepsEach = simulated ? 2 : 8
  const count = simulated ? 2 : 200
  const steps = await run(...common, '--name', 'steps', '--steps', String(count))
  const local = ['--replicas', '2', '--local-steps', String(stepsEach)]
  const inRounds = await run(
    ...common,
    ...local,
    '--name',
    'rounds',
    '--steps',
    String(Math.ceil(count / stepsEach / 2)),
  )
  return { steps: steps.imagesPerSecond, rounds: inRounds.imagesPerSecond, localSteps: stepsEach }
}

/** The parts, in their order; the first says what there is. */
export const parts = {
  engine: {
    what: 'the GPU, cuDNN and NVRTC are found and compute a right gradient',
    minutes: 1,
    run: identify,
  },
  gradients: { what: 'gradients of all layers and networks in each precision', minutes: 4, run: gradients },
  processes: { what: 'the same bits in five processes', minutes: 2, run: processes },
  sanitizer: { what: 'no memory errors (compute-sanitizer)', minutes: 3, run: sanitizer },
  speed: { what: 'images/s, beside PyTorch', minutes: 5, run: speed },
  train: { what: 'a run with --recipe fast to its end', minutes: 6, run: train },
  time: { what: 'where the time goes', minutes: 1, run: time },
  rounds: { what: 'rounds beside steps, two workers on one GPU', minutes: 2, run: rounds },
} as const satisfies Record<string, Part>

export type PartName = keyof typeof parts
export const partNames = Object.keys(parts) as PartName[]
export const fileOf = (out: string, name: PartName): string => path.join(out, `${name}.json`)
