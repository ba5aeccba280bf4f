import type { EngineChoice } from '@convoy/engine'
import { cudnnGpus } from '@convoy/engine-cudnn'
import { measurePeak, onednnStatus } from '@convoy/engine-onednn'
import { tensorflowIsSetUp } from '@convoy/engine-tfjs'
import type { EngineName } from '@convoy/engines'
import { buildModel, multiplyAdds } from '@convoy/model'
import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { availableParallelism } from 'node:os'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Display } from './display.ts'
import type { Measure, Measured } from './engine-process.ts'
import { EXIT } from './schemas.ts'
import type { Given } from './options.ts'
import { median } from './statistics.ts'
import { torchPeer } from './torch-peer.ts'
import { styleFor } from './train.ts'

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

/** A process that measures engines; it stays warm between rounds. */
export class EngineProcess {
  readonly #child: ChildProcess

  constructor() {
    this.#child = fork(fileURLToPath(new URL('./engine-process.mjs', import.meta.url)), { execArgv: [] })
  }

  async measure(request: Measure): Promise<Measured> {
    this.#child.send(request)
    const settled = new AbortController()
    const { signal } = settled
    const over = once(this.#child, 'exit', { signal }).then(([code, by]) => {
      throw new Error(`the process of ${request.engine.engine} ended with ${code ?? by}`)
    })
    try {
      const [answer] = (await Promise.race([once(this.#child, 'message', { signal }), over])) as [
        Measured | { error: string },
      ]
      if ('error' in answer) throw new Error(answer.error)
      return answer
    } finally {
      settled.abort()
    }
  }

  close(): void {
    this.#child.kill()
  }
}

/** PyTorch in a process of its own, or undefined where no Python has it. */
async function startTorch(): Promise<
  { version: string; cuda: boolean; ask: (line: string) => Promise<number>; close: () => void } | undefined
> {
  for (const python of ['python3', '/usr/bin/python3']) {
    const child = spawn(python, ['-u', '-c', torchPeer], { stdio: ['pipe', 'pipe', 'ignore'] })
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    child.on('error', () => {})
    const first = await lines.next()
    if (first.done) continue
    const [version, device] = first.value.split(' ')
    return {
      version: `${version} (${python})`,
      cuda: device === 'cuda',
      async ask(line) {
        child.stdin.write(`${line}\n`)
        return Number((await lines.next()).value)
      },
      close: () => child.kill(),
    }
  }
  return undefined
}

/** `convoy bench engine`. */
export async function benchEngine(
  _given: Given,
  options: { json?: boolean; rounds: number },
): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const { rounds } = options
  const cores = Math.min(2, availableParallelism())
  const benches = Array.from({ length: cores }, () => new EngineProcess())
  const cases: Case[] = []
  const engineCase = (
    engine: EngineName,
    precision: EngineChoice['precision'],
    leaf: number,
    processes: number,
    threads = 1,
    forward = false,
  ) => {
    const choice: EngineChoice = { engine, precision, threads, device: 0, gpu: false }
    cases.push({
      name: `${engine} ${precision} leaf ${leaf}, ${processes} × ${threads} thread${forward ? ', forward' : ''}`,
      engine,
      precision,
      leaf,
      threads: processes * threads,
      forward,
      results: [],
      run: async () => {
        const all = await Promise.all(
          benches
            .slice(0, processes)
            .map((bench) => bench.measure({ engine: choice, leaf, seconds: SECONDS, forward })),
        )
        return all.reduce((sum, { imagesPerSecond }) => sum + imagesPerSecond, 0)
      },
    })
    return cases.at(-1)!
  }

  const onednn = onednnStatus()
  const precisions = onednn.found
    ? onednn.bf16
      ? (['bf16', 'float32'] as const)
      : (['float32'] as const)
    : []
  const mine: Partial<Record<'bf16' | 'float32', Case>> = {}
  for (const precision of precisions) {
    mine[precision] = engineCase('onednn', precision, 16, cores)
    engineCase('onednn', precision, 16, 1)
    engineCase('onednn', precision, 64, 1)
    engineCase('onednn', precision, 16, 1, 1, true)
    if (cores > 1) engineCase('onednn', precision, 64, 1, cores)
  }
  const wasm = engineCase('tfjs-wasm', 'float32', 16, 1)
  const wasmForward = engineCase('tfjs-wasm', 'float32', 16, 1, 1, true)
  const tensorflow = tensorflowIsSetUp() ? engineCase('tfjs-tensorflow', 'float32', 16, cores) : undefined
  if (tensorflow) {
    engineCase('tfjs-tensorflow', 'float32', 16, 1)
    engineCase('tfjs-tensorflow', 'float32', 64, 1)
  }
  const torch = await startTorch()
  const gpuCases = GPU_LEAVES.map((leaf) => ({
    leaf,
    mine: cudnnGpus() > 0 ? engineCase('cudnn', 'bf16', leaf, 1) : undefined,
    torch: [] as Case[],
  }))
  if (cudnnGpus() > 0)
    for (const precision of ['tf32', 'float32'] as const) engineCase('cudnn', precision, 512, 1)
  const torchCases: Case[] = []
  if (torch) {
    // A processor without bf16 takes half a minute for one of PyTorch's steps in it.
    for (const precision of onednn.found && onednn.bf16
      ? (['float32', 'bf16'] as const)
      : (['float32'] as const)) {
      for (const layout of ['contiguous', 'channels_last']) {
        torchCases.push({
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
    cases.push(...torchCases)
    for (const { leaf, torch: peers } of torch.cuda ? gpuCases : []) {
      for (const mode of ['eager', 'compiled']) {
        peers.push({
          name: `PyTorch bf16 channels_last batch ${leaf}, GPU, ${mode}`,
          engine: `torch ${torch.version} ${mode}`,
          precision: 'bf16',
          leaf,
          threads: 1,
          forward: false,
          results: [],
          run: () => torch.ask(`${cores} ${leaf} bf16 channels_last ${SECONDS} cuda ${mode}`),
        })
      }
      cases.push(...peers)
    }
  }

  const peaks: number[] = []
  const started = performance.now()
  for (let round = 0; round < rounds; round++) {
    for (const [i, one] of cases.entries()) {
      const done = round * cases.length + i
      const eta = ((performance.now() - started) / 1000 / Math.max(1, done)) * (rounds * cases.length - done)
      display.progress(
        `round ${round + 1} of ${rounds}: ${one.name}${done > 0 ? `, ETA ${eta.toFixed(0)} s` : ''}`,
      )
      one.results.push(await one.run())
      // The peak is taken beside the case that is held against it, so that both meet the same weather.
      if (one === mine.bf16) peaks.push(measurePeak('bf16', 1, 5))
    }
  }
  // The plain backend takes a minute an image at full width: both are compared at a quarter of it, on few images.
  const narrow = (engine: EngineName, seconds: number) =>
    benches[0].measure({
      engine: { engine, precision: 'float32', threads: 1, device: 0, gpu: false },
      leaf: 2,
      model: buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.25 }),
      seconds,
    })
  display.progress('the plain JavaScript backend, a few images')
  const wasmVsCpu =
    (await narrow('tfjs-wasm', SECONDS)).imagesPerSecond / (await narrow('tfjs-cpu', 0)).imagesPerSecond

  for (const one of cases) {
    const imagesPerSecond = median(one.results)
    const { name, engine, precision, leaf, threads, forward } = one
    const gflops = imagesPerSecond * (forward ? FORWARD : TRAINING)
    if (options.json) {
      const line = {
        event: 'engine',
        name,
        engine,
        precision,
        leaf,
        threads,
        forward,
        imagesPerSecond,
        gflops,
      }
      process.stdout.write(`${JSON.stringify({ ...line, rounds: one.results })}\n`)
    } else
      display.say(
        `${name.padEnd(52)} ${imagesPerSecond.toFixed(1).padStart(8)} images/s ${gflops.toFixed(0).padStart(6)} GFLOP/s`,
      )
  }
  /** Median over the rounds of mine / theirs in the same round, theirs in its better layout. */
  const versus = (
    ours: Case | undefined,
    precision: string,
    theirs = torchCases.filter((one) => one.precision === precision),
  ): number | null => {
    if (!ours || theirs.length === 0) return null
    return median(ours.results.map((value, i) => value / Math.max(...theirs.map((one) => one.results[i]))))
  }
  const summary = {
    event: 'summary',
    bf16VsTorchBf16: versus(mine.bf16, 'bf16'),
    bf16VsTorchF32: versus(mine.bf16, 'float32'),
    f32VsTorchF32: versus(mine.float32, 'float32'),
    tensorflowVsTorchF32: versus(tensorflow, 'float32'),
    /** libtensorflow by oneDNN's float32, as many one-thread processes. */
    tensorflowVsOnednnF32:
      tensorflow && mine.float32
        ? median(tensorflow.results.map((value, i) => value / mine.float32!.results[i]))
        : null,
    ...Object.fromEntries(
      gpuCases.flatMap(({ leaf, mine, torch }) =>
        torch.map((one, i) => [
          `cudnnVsTorch${i === 0 ? 'Eager' : 'Compiled'}${leaf}`,
          versus(mine, 'bf16', [one]),
        ]),
      ),
    ),
    shareOfPeak: mine.bf16
      ? median(mine.bf16.results.map((value, i) => (value * TRAINING) / cores / peaks[i]))
      : null,
    peakGflops: peaks.length > 0 ? median(peaks) : null,
    wasmVsCpu,
    /** Time of a training step by that of its forward pass, each per GFLOP. */
    wasmStepVsForward: median(
      wasm.results.map((value, i) => (wasmForward.results[i] * FORWARD) / (value * TRAINING)),
    ),
    torch: torch?.version ?? null,
  }
  if (options.json) process.stdout.write(`${JSON.stringify(summary)}\n`)
  else {
    for (const [key, value] of Object.entries(summary).slice(1)) {
      display.say(`${key.padEnd(20)} ${typeof value === 'number' ? value.toFixed(2) : String(value)}`)
    }
  }
  for (const bench of benches) bench.close()
  torch?.close()
  return EXIT.done
}
