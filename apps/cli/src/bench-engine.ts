import type { EngineChoice } from '@convoy/engine'
import { cudnnGpus } from '@convoy/engine-cudnn'
import { measurePeak, onednnStatus } from '@convoy/engine-onednn'
import { tensorflowIsSetUp } from '@convoy/engine-tfjs'
import type { EngineName } from '@convoy/engines'
import { buildModel, multiplyAdds } from '@convoy/model'
import { availableParallelism } from 'node:os'
import { Display, styleFor } from './display.ts'
import { EngineProcess } from './engine-process.ts'
import { EXIT } from './schemas.ts'
import { bringOnednn } from './onednn.ts'
import type { Given } from './options.ts'
import { median } from './statistics.ts'
import { startTorch, type TorchPeer } from './torch-peer.ts'

/** Seconds of each single measurement. */
const SECONDS = 1

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })
/** GFLOP of one image: forward, and forward with backward less the input gradient of the first layer. */
const FORWARD = (2 * multiplyAdds(model)) / 1e9
const FIRST = (2 * 32 * 32 * 27 * 96) / 1e9
const TRAINING = 3 * FORWARD - FIRST

/** Leaves and batches that a GPU is measured with. */
const GPU_LEAVES = [128, 512, 2048]

/** One thing that is measured in every round. */
interface Case {
  readonly name: string
  readonly engine: string
  readonly precision: string
  readonly leaf: number
  /** Threads in all: processes × threads of each. */
  readonly threads: number
  readonly forward: boolean
  readonly run: () => Promise<number>
  readonly results: number[]
}

/** What this machine's engines are measured with; what is compared later has a name. */
interface EngineCases {
  readonly all: Case[]
  /** oneDNN on all cores, where it is there. */
  readonly onednn: Partial<Record<'bf16' | 'float32', Case>>
  readonly wasm: Case
  readonly wasmForward: Case
  readonly tensorflow: Case | undefined
  /** cuDNN in bf16 by leaf; empty without a GPU. */
  readonly cudnn: ReadonlyMap<number, Case>
}

/** What PyTorch is measured with; all empty without it. */
interface TorchCases {
  readonly cpu: Case[]
  /** On a GPU by batch: eager, then compiled. */
  readonly gpu: ReadonlyMap<number, Case[]>
}

/** Precisions that oneDNN has on this processor; none where it is not installed. */
function onednnPrecisions(): readonly ('bf16' | 'float32')[] {
  const onednn = onednnStatus()
  if (!onednn.found) return []
  return onednn.bf16 ? ['bf16', 'float32'] : ['float32']
}

/** The cases of every engine that is there, on one process of `benches` or all of them. */
function engineCases(benches: readonly EngineProcess[]): EngineCases {
  const cores = benches.length
  const all: Case[] = []
  const add = (
    engine: EngineName,
    precision: EngineChoice['precision'],
    leaf: number,
    processes: number,
    threads = 1,
    forward = false,
  ): Case => {
    const choice: EngineChoice = { engine, precision, threads, device: 0, gpu: false }
    const request = { engine: choice, leaf, seconds: SECONDS, forward }
    const one: Case = {
      name: `${engine} ${precision} leaf ${leaf}, ${processes} × ${threads} thread${forward ? ', forward' : ''}`,
      engine,
      precision,
      leaf,
      threads: processes * threads,
      forward,
      results: [],
      run: async () => {
        const speeds = await Promise.all(benches.slice(0, processes).map((bench) => bench.measure(request)))
        return speeds.reduce((sum, { imagesPerSecond }) => sum + imagesPerSecond, 0)
      },
    }
    all.push(one)
    return one
  }

  const onednn: Partial<Record<'bf16' | 'float32', Case>> = {}
  for (const precision of onednnPrecisions()) {
    onednn[precision] = add('onednn', precision, 16, cores)
    add('onednn', precision, 16, 1)
    add('onednn', precision, 64, 1)
    add('onednn', precision, 16, 1, 1, true)
    if (cores > 1) add('onednn', precision, 64, 1, cores)
  }
  const wasm = add('tfjs-wasm', 'float32', 16, 1)
  const wasmForward = add('tfjs-wasm', 'float32', 16, 1, 1, true)
  const tensorflow = tensorflowIsSetUp() ? add('tfjs-tensorflow', 'float32', 16, cores) : undefined
  if (tensorflow) {
    add('tfjs-tensorflow', 'float32', 16, 1)
    add('tfjs-tensorflow', 'float32', 64, 1)
  }
  const cudnn = new Map<number, Case>()
  if (cudnnGpus() > 0) {
    for (const leaf of GPU_LEAVES) cudnn.set(leaf, add('cudnn', 'bf16', leaf, 1))
    for (const precision of ['tf32', 'float32'] as const) add('cudnn', precision, 512, 1)
  }
  return { all, onednn, wasm, wasmForward, tensorflow, cudnn }
}

/** The cases of the same step in PyTorch: on the CPU in both layouts, on its GPU eager and compiled. */
function torchCases(torch: TorchPeer | undefined, cores: number): TorchCases {
  const cpu: Case[] = []
  const gpu = new Map<number, Case[]>()
  if (!torch) return { cpu, gpu }
  // A processor without bf16 takes half a minute for one of PyTorch's steps in it.
  for (const precision of onednnPrecisions().includes('bf16') ? ['float32', 'bf16'] : ['float32']) {
    for (const layout of ['contiguous', 'channels_last']) {
      cpu.push({
        name: `PyTorch ${precision} ${layout} batch 64, ${cores} threads`,
        engine: `torch ${torch.version}`,
        precision,
        leaf: 64,
        threads: cores,
        forward: false,
        results: [],
        run: () => torch.ask(`${cores} 64 ${precision} ${layout} ${SECONDS} cpu eager`),
      })
    }
  }
  for (const leaf of torch.cuda ? GPU_LEAVES : []) {
    const peers = ['eager', 'compiled'].map((mode) => ({
      name: `PyTorch bf16 channels_last batch ${leaf}, GPU, ${mode}`,
      engine: `torch ${torch.version} ${mode}`,
      precision: 'bf16',
      leaf,
      threads: 1,
      forward: false,
      results: [],
      run: () => torch.ask(`${cores} ${leaf} bf16 channels_last ${SECONDS} cuda ${mode}`),
    }))
    gpu.set(leaf, peers)
  }
  return { cpu, gpu }
}

/** Measures every case once a round, so that all meet the same weather; `measured` is called after each. */
async function runRounds(
  cases: readonly Case[],
  rounds: number,
  display: Display,
  measured: (one: Case) => void,
): Promise<void> {
  const started = performance.now()
  for (let round = 0; round < rounds; round++) {
    for (const [i, one] of cases.entries()) {
      const done = round * cases.length + i
      const eta = ((performance.now() - started) / 1000 / Math.max(1, done)) * (rounds * cases.length - done)
      display.progress(
        `round ${round + 1} of ${rounds}: ${one.name}${done > 0 ? `, ETA ${eta.toFixed(0)} s` : ''}`,
      )
      one.results.push(await one.run())
      measured(one)
    }
  }
}

/** WebAssembly's speed by that of the plain backend. */
async function wasmByCpu(bench: EngineProcess): Promise<number> {
  // The plain backend takes a minute an image at full width: both are compared at a quarter of it, on few images.
  const narrow = (engine: EngineName, seconds: number) =>
    bench.measure({
      engine: { engine, precision: 'float32', threads: 1, device: 0, gpu: false },
      leaf: 2,
      model: buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.25 }),
      seconds,
    })
  return (await narrow('tfjs-wasm', SECONDS)).imagesPerSecond / (await narrow('tfjs-cpu', 0)).imagesPerSecond
}

function showCase(one: Case, json: boolean | undefined, display: Display): void {
  const imagesPerSecond = median(one.results)
  const { name, engine, precision, leaf, threads, forward } = one
  const gflops = imagesPerSecond * (forward ? FORWARD : TRAINING)
  if (json) {
    const line = { event: 'engine', name, engine, precision, leaf, threads, forward, imagesPerSecond, gflops }
    process.stdout.write(`${JSON.stringify({ ...line, rounds: one.results })}\n`)
  } else
    display.say(
      `${name.padEnd(52)} ${imagesPerSecond.toFixed(1).padStart(8)} images/s ${gflops.toFixed(0).padStart(6)} GFLOP/s`,
    )
}

/** Median over the rounds of ours / theirs in the same round, theirs in the best of its cases; null without one of them. */
function versus(ours: Case | undefined, theirs: readonly Case[]): number | null {
  if (!ours || theirs.length === 0) return null
  return median(ours.results.map((value, i) => value / Math.max(...theirs.map(({ results }) => results[i]))))
}

/**
 * The figures that comparisons come to.
 *
 * @param peaks GFLOP/s of one core in bf16, taken in each round.
 */
function summarise(engines: EngineCases, torch: TorchCases, peaks: readonly number[], cores: number) {
  const { onednn, wasm, wasmForward, tensorflow, cudnn } = engines
  const cpu = (precision: string) => torch.cpu.filter((one) => one.precision === precision)
  return {
    bf16VsTorchBf16: versus(onednn.bf16, cpu('bf16')),
    bf16VsTorchF32: versus(onednn.bf16, cpu('float32')),
    f32VsTorchF32: versus(onednn.float32, cpu('float32')),
    tensorflowVsTorchF32: versus(tensorflow, cpu('float32')),
    /** libtensorflow by oneDNN's float32, as many one-thread processes. */
    tensorflowVsOnednnF32: versus(tensorflow, onednn.float32 ? [onednn.float32] : []),
    ...Object.fromEntries(
      [...torch.gpu].flatMap(([leaf, peers]) =>
        peers.map((one, i) => [
          `cudnnVsTorch${i === 0 ? 'Eager' : 'Compiled'}${leaf}`,
          versus(cudnn.get(leaf), [one]),
        ]),
      ),
    ),
    shareOfPeak: onednn.bf16
      ? median(onednn.bf16.results.map((value, i) => (value * TRAINING) / cores / peaks[i]))
      : null,
    peakGflops: peaks.length > 0 ? median(peaks) : null,
    /** Time of a training step by that of its forward pass, each per GFLOP. */
    wasmStepVsForward: median(
      wasm.results.map((value, i) => (wasmForward.results[i] * FORWARD) / (value * TRAINING)),
    ),
  }
}

/** `convoy bench engine`. */
export async function benchEngine(
  _given: Given,
  { json, rounds }: { json?: boolean; rounds: number },
): Promise<number> {
  const display = new Display(styleFor(json), process.stdout)
  await bringOnednn({ engine: 'auto', gpu: false }, display)
  const cores = Math.min(2, availableParallelism())
  const benches = Array.from({ length: cores }, () => new EngineProcess())
  const engines = engineCases(benches)
  const torch = await startTorch()
  const peers = torchCases(torch, cores)
  const cases = [...engines.all, ...peers.cpu, ...[...peers.gpu.values()].flat()]
  const peaks: number[] = []
  await runRounds(cases, rounds, display, (one) => {
    // The peak is taken beside the case that is held against it, so that both meet the same weather.
    if (one === engines.onednn.bf16) peaks.push(measurePeak('bf16', 1, 5))
  })
  display.progress('the plain JavaScript backend, a few images')
  const wasmVsCpu = await wasmByCpu(benches[0])

  for (const one of cases) showCase(one, json, display)
  const figures = {
    ...summarise(engines, peers, peaks, cores),
    wasmVsCpu,
    torch: torch?.version ?? null,
  }
  if (json) process.stdout.write(`${JSON.stringify({ event: 'summary', ...figures })}\n`)
  else {
    for (const [key, value] of Object.entries(figures))
      display.say(`${key.padEnd(20)} ${typeof value === 'number' ? value.toFixed(2) : String(value)}`)
  }
  for (const bench of benches) bench.close()
  torch?.close()
  return EXIT.done
}
