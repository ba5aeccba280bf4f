import { ConvoyError, isErrorCode } from '@convoy/errors'
import type { EngineConfig } from '@convoy/worker'
import { fork, type ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { allowance, workersFor } from './machine.ts'
import { MANAGED, type WorkerEnd } from './work.ts'

/** A local worker that lives no longer than this, in milliseconds, is not simply started again. */
const SOON = 5_000

/** The worker processes that `convoy train` runs on this machine; one that dies is replaced. */
export class LocalWorkers {
  readonly #url: string
  readonly #engine: EngineConfig
  readonly #token: string | undefined
  readonly #failed: (error: ConvoyError) => void
  readonly #children = new Map<string, ChildProcess>()
  #gpus = 0
  #closed = false
  /** What the worker that ended last ended with. */
  #lastEnd: string | undefined

  /** @param failed Called when workers cannot be started here at all. */
  constructor(
    url: string,
    engine: EngineConfig,
    token: string | undefined,
    failed: (error: ConvoyError) => void,
  ) {
    this.#url = url
    this.#engine = engine
    this.#token = token
    this.#failed = failed
  }

  /** @param gpus GPUs that the workers share out among themselves. */
  start({ count, gpus }: { count: number; gpus: number }): void {
    this.#gpus = gpus
    for (let n = 0; n < count; n++) this.#spawn(n)
  }

  /** Process ids by name. */
  get pids(): Map<string, number> {
    return new Map([...this.#children].map(([name, child]) => [name, child.pid ?? 0]))
  }

  /** From here on, a worker that ends is not replaced. */
  expectEnd(): void {
    this.#closed = true
  }

  /** Waits until all have gone; those that do not within a second are ended. */
  async close(): Promise<void> {
    this.expectEnd()
    const ends = [...this.#children.values()].map(
      (child) => new Promise<void>((resolve) => child.once('exit', () => resolve())),
    )
    const late = setTimeout(() => this.#children.forEach((child) => child.kill('SIGKILL')), 1_500)
    await Promise.all(ends)
    clearTimeout(late)
  }

  #spawn(index: number): void {
    const name = `local-${index + 1}`
    const { engine, precision, threads, device, gpu } = this.#engine
    const started = performance.now()
    let end: WorkerEnd | undefined
    const args = ['worker', '--coordinator', this.#url, '--worker-name', name, '--engine', engine]
    args.push('--precision', precision, '--threads', String(threads), ...(gpu ? ['--gpu'] : []))
    args.push('--device', String(device ?? (this.#gpus > 0 ? index % this.#gpus : 0)))
    // What a user set for the cluster must not reach each worker a second time.
    const environment = Object.fromEntries(
      Object.entries(process.env).filter(([key]) => !key.startsWith('CONVOY_')),
    )
    for (const key of ['CONVOY_ONEDNN', 'CONVOY_CUDA', 'CONVOY_CACHE']) {
      if (process.env[key] !== undefined) environment[key] = process.env[key]
    }
    const child = fork(fileURLToPath(new URL('./convoy.mjs', import.meta.url)), args, {
      env: {
        ...environment,
        [MANAGED]: '1',
        CONVOY_LOG: 'pretty',
        ...(this.#token ? { CONVOY_TOKEN: this.#token } : {}),
      },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
      execArgv: [],
    })
    this.#children.set(name, child)
    child.on('message', (message: WorkerEnd) => {
      if (isErrorCode(message.code)) end = message
    })
    child.on('exit', (code, signal) => {
      this.#children.delete(name)
      if (this.#closed || code === 0) return
      const error = end && new ConvoyError(end.code, end.message, end.remedy)
      // What was never let in, or ended as one before it did, would only do so again.
      const again = end?.wasJoined === false || (end !== undefined && end.message === this.#lastEnd)
      this.#lastEnd = end?.message
      if (again || (signal === null && performance.now() - started < SOON)) {
        this.#failed(
          error ??
            new ConvoyError(
              'E_ENGINE',
              `a local worker ended at once with exit code ${code}`,
              `Run \`convoy worker --coordinator ${this.#url}\` by hand to see why.`,
            ),
        )
        return
      }
      if (error) process.stderr.write(`${error.toText()}\n`)
      setTimeout(() => this.#closed || this.#spawn(index), 500)
    })
  }
}

/** How many workers run here, on how many GPUs, and why they are fewer than the cores. */
interface Plan {
  readonly count: number
  readonly gpus: number
  readonly note?: string
}

/**
 * How many workers this machine runs, and on how many GPUs: as many as asked for, else one a GPU where they would compute
 * on GPUs, else one a core, or as many as the process's quota and memory allow.
 */
export async function planWorkers(
  config: EngineConfig & { readonly workers?: number | undefined },
): Promise<Plan> {
  const { engine, device, threads, workers } = config
  // Loaded here only: a coordinator's image has no engines.
  const gpus = await usableGpus(engine)
  if (workers !== undefined) return { count: workers, gpus }
  if (gpus > 0) return { count: device === undefined ? gpus : 1, gpus }
  const { count, bound } = workersFor(allowance(), threads)
  const note = `${count} here: ${bound} allows no more (--workers N decides)`
  return { count, gpus, ...(bound === undefined ? {} : { note }) }
}

/** GPUs that local workers take turns on: NVIDIA's, or the first that WebGPU finds, since others may be of another model. */
async function usableGpus(engine: EngineConfig['engine']): Promise<number> {
  const asked = (name: string) => engine === 'auto' || engine === name
  const cudnn = asked('cudnn') ? (await import('@convoy/engine-cudnn')).cudnnGpus() : 0
  if (cudnn > 0 || !asked('webgpu')) return cudnn
  return import('@convoy/engine-tfjs').then(
    async ({ webgpuGpuCount }) => Math.min(1, await webgpuGpuCount()),
    () => 0,
  )
}
