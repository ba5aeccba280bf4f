import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { Convoy, root, type Line } from '../convoy.ts'
import type { FloodOptions, FloodProgress } from './flood.ts'

export interface FuzzOptions {
  readonly seed: number
  /** Malformed frames, and connections without the token. */
  readonly frames: number
  readonly connections: number
  /** Frames a second at most. */
  readonly rate: number
  /** Seconds of training before the flood and after it, over which speed and memory are taken. */
  readonly calm: number
  /** Options of the run: data, model, batch. */
  readonly run: readonly string[]
  /** Options of every worker: the engine. */
  readonly worker: readonly string[]
  /** Where the runs are kept. */
  readonly folder: string
  readonly report: (progress: FloodProgress) => void
}

export interface FuzzOutcome {
  readonly frames: number
  readonly connections: number
  /** What the coordinator refused, by the code of the reason. */
  readonly refused: Record<string, number>
  /** Resident memory of the coordinator in MB without garbage, and what it is of that before. */
  readonly memory: { readonly before: number; readonly after: number }
  readonly memoryRatio: number
  /** Training images a second, and what it is of that without the flood. */
  readonly imagesPerSecond: { readonly without: number; readonly during: number }
  readonly speedRatio: number
  readonly floodSeconds: number
  readonly steps: number
  readonly equal: boolean
  readonly parametersSha256: string
}

const token = 'the-token-of-the-flooded'

/** Resident memory of a process, in MB. */
function residentMemory(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
}

/**
 * Has a process collect its garbage, through its inspector: V8 leaves it lying about until the heap has grown threefold,
 * which says nothing of what is held on to.
 */
async function collectGarbage(coordinator: Convoy): Promise<void> {
  const inspector = await coordinator.until((it) => /Debugger listening on (ws:\S+)/.exec(it.text)?.[1])
  const socket = new WebSocket(inspector)
  await once(socket, 'open')
  socket.send(JSON.stringify({ id: 1, method: 'HeapProfiler.collectGarbage' }))
  await once(socket, 'message')
  socket.close()
}

/** The middle of what the memory was over some seconds, looked at ten times. */
async function settledMemory(coordinator: Convoy, seconds: number): Promise<number> {
  const pid = coordinator.child.pid!
  await collectGarbage(coordinator)
  const seen: number[] = []
  for (let i = 0; i < 10; i++) {
    seen.push(residentMemory(pid))
    await sleep(100 * seconds)
  }
  return seen.sort((a, b) => a - b)[5]
}

/** The coordinator's `refused_total`, by code. */
async function refusedBy(url: string): Promise<Record<string, number>> {
  const text = await (await fetch(new URL('/metrics', url.replace(/^ws/, 'http')))).text()
  return Object.fromEntries(
    [...text.matchAll(/^convoy_refused_total\{code="(\w+)"\} (\d+)/gm)].map(([, code, n]) => [
      code,
      Number(n),
    ]),
  )
}

const steps = (lines: readonly Line[]) => lines.filter(({ event }) => event === 'step')

/** Images a second over the steps that came between two moments, given as numbers of lines. */
function speed(lines: readonly Line[]): number {
  const all = steps(lines)
  const sum = (key: string) => all.reduce((total, line) => total + Number(line[key]), 0)
  return sum('samples') / sum('seconds')
}

/** Runs the flood in a process of its own. */
async function flood(
  options: FloodOptions,
  report: (progress: FloodProgress) => void,
): Promise<FloodProgress> {
  const child = spawn(
    process.execPath,
    [
      path.join(root, 'tools', 'run.mjs'),
      path.join(root, 'test', 'fuzz', 'flood.ts'),
      JSON.stringify(options),
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  )
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  let last: FloodProgress | undefined
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      last = JSON.parse(line) as FloodProgress
      report(last)
    }
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
  if ((await ended) !== 0 || !last?.over) throw new Error('the flood itself broke off')
  return last
}

/** A training that is flooded, beside an undisturbed one of as many updates. Throws where the coordinator does not live through it. */
export async function fuzz(options: FuzzOptions): Promise<FuzzOutcome> {
  const { seed, frames, connections, rate, calm, run, worker, folder, report } = options
  const settings = [
    ...run,
    '--runs',
    folder,
    '--port',
    '0',
    '--json',
    '--epochs',
    '1000000',
    '--evaluate-every',
    '0',
  ]
  const coordinator = new Convoy(['coordinator', ...settings, '--name', 'flooded'], {
    CONVOY_TOKEN: token,
    NODE_OPTIONS: '--inspect=127.0.0.1:0',
  })
  let honest: Convoy | undefined
  try {
    const url = await coordinator.address()
    honest = new Convoy(['worker', '--coordinator', url, '--worker-name', 'honest', ...worker], {
      CONVOY_TOKEN: token,
    })
    // Past the first epoch nothing more is allocated for good.
    await coordinator.until((it) => it.event('epoch'))
    const settled = coordinator.lines.length
    const memoryBefore = (await Promise.all([settledMemory(coordinator, calm), sleep(1000 * calm)]))[0]
    const first = coordinator.lines.length
    let last = first
    const parameters = Number(coordinator.event('start')!['parameters'])
    const { seconds, ...sent } = await flood(
      {
        ...{ port: Number(new URL(url).port), token, seed, frames, connections, rate },
        gradientBytes: 4 * parameters,
      },
      (progress) => {
        if (coordinator.child.exitCode !== null)
          throw new Error(`the coordinator ended: ${coordinator.text.slice(-2000)}`)
        report(progress)
        // The last strangers wait until they are dropped: that is no flood any more.
        if (progress.frames < frames) last = coordinator.lines.length
      },
    )
    // What was waited for times out, what was closed is let go of.
    await sleep(12_000)
    const after = coordinator.lines.length
    if (last === first) last = after
    const memoryAfter = (await Promise.all([settledMemory(coordinator, calm), sleep(1000 * calm)]))[0]
    const refused = await refusedBy(url)
    const { lines } = coordinator
    const [during, without] = [
      speed(lines.slice(first, last)),
      speed([...lines.slice(settled, first), ...lines.slice(after)]),
    ]
    coordinator.child.kill('SIGTERM')
    const code = await coordinator.ended
    const done = coordinator.event('done')
    if (code !== 0 || !done)
      throw new Error(`the coordinator ended with ${code}: ${coordinator.text.slice(-2000)}`)
    const step = Number(done['step'])
    const reference = await new Convoy([
      'train',
      ...settings,
      ...worker,
      '--workers',
      '2',
      '--steps',
      String(step),
    ]).done()
    return {
      frames: sent.frames,
      connections: sent.connections,
      refused,
      memory: { before: memoryBefore, after: memoryAfter },
      memoryRatio: memoryAfter / memoryBefore,
      imagesPerSecond: { without, during },
      speedRatio: during / without,
      floodSeconds: seconds,
      steps: step,
      equal: reference['parametersSha256'] === done['parametersSha256'],
      parametersSha256: done['parametersSha256'] as string,
    }
  } finally {
    coordinator.child.kill('SIGKILL')
    honest?.child.kill('SIGKILL')
  }
}
