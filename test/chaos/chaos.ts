import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import { Convoy, freePort, root } from '../convoy.ts'
import { Fleet } from './fleet.ts'
import { schedule, type Fault } from './schedule.ts'

export interface ChaosOptions {
  readonly seed: number
  readonly steps: number
  readonly faults: number
  /** The kinds of faults; all where none are named. */
  readonly only?: readonly Fault['kind'][]
  /** Options of the run: data, model, batch. */
  readonly run: readonly string[]
  /** Options of every worker: the engine. */
  readonly worker: readonly string[]
  /** Relays between the coordinator and some of the workers. */
  readonly relays: number
  /** Where the runs are kept. */
  readonly folder: string
  readonly report: (line: object) => void
}

export interface Outcome {
  readonly faults: Fault[]
  readonly parametersSha256: string
  /** Of the whole disturbed run, restarts and all. */
  readonly seconds: number
}

/** The sum of an undisturbed run with one worker. */
export async function undisturbed({ steps, run, worker, folder }: ChaosOptions): Promise<string> {
  const args = ['train', ...run, ...worker, '--steps', String(steps), '--runs', folder]
  const done = await new Convoy([...args, '--port', '0', '--workers', '1', '--json']).done()
  return done['parametersSha256'] as string
}

/** A run that makes no step for so long, in ms, hangs; what a fault may cost is far below. */
const HANGS = 120_000

/** A disk that can be made slow or full for a process that is started with `environment`. */
export function faultyDisk(folder: string, name: string) {
  const control = path.join(folder, `${name}.disk`)
  const set = (state: {
    mode?: 'slow' | 'full' | 'readOnly'
    milliseconds?: number
    files?: string
    again?: string
  }) => writeFileSync(control, JSON.stringify(state))
  set({})
  const preload = pathToFileURL(path.join(root, 'test', 'chaos', 'disk.mjs')).href
  return { set, environment: { NODE_OPTIONS: `--import=${preload}`, FAULTY_DISK: control } }
}

/** Whether a checkpoint is being written in this folder. */
export function isWriting(checkpoints: string): boolean {
  try {
    return readdirSync(checkpoints).some((name) => name.endsWith('.tmp'))
  } catch {
    return false
  }
}

/** Checks that what a run's ledger says was applied last in each step makes up each whole epoch exactly. */
export function checkLedger(
  file: string,
  { steps, epochSteps }: { steps: number; epochSteps: number },
): void {
  const entries: { epoch: number; samples: number[] }[] = []
  for (const line of readFileSync(file, 'utf8').trimEnd().split('\n')) {
    const { step, ...entry } = JSON.parse(line) as { step: number; epoch: number; samples: number[] }
    entries[step] = entry
  }
  if (entries.length !== steps) throw new Error(`the ledger has ${entries.length} steps of ${steps}`)
  for (let from = 0; from < steps; from += epochSteps) {
    const used = entries.slice(from, from + epochSteps).flatMap(({ samples }) => samples)
    if (new Set(used).size !== used.length) throw new Error(`samples were used twice from step ${from} on`)
    const whole = from + epochSteps <= steps
    if (whole && used.length !== Math.max(...used) + 1)
      throw new Error(`samples are missing from step ${from} on`)
  }
}

/** A run with real processes to which the faults of a seed happen. */
export async function disturbed(options: ChaosOptions): Promise<Outcome> {
  const { seed, steps, run, worker, relays, folder, report } = options
  const started = performance.now()
  const port = await freePort()
  const name = `chaos-${seed}-${process.pid}`
  const checkpoints = path.join(folder, name, 'checkpoints')
  const command = [
    'coordinator',
    ...run,
    '--steps',
    String(steps),
    '--runs',
    folder,
    '--name',
    name,
    '--ledger',
  ]
  const settings = ['--port', String(port), '--checkpoint-every', '0.5', '--json']
  let over = false
  let coordinator: Convoy
  let furthest = 0
  const disk = faultyDisk(folder, name)
  const startCoordinator = () => {
    coordinator = new Convoy([...command, ...settings], disk.environment)
    const mine = coordinator
    // A supervisor's part: what ends before the run does is started again.
    void mine.ended.then(() => {
      if (!over && mine === coordinator && !mine.event('done')) startCoordinator()
    })
  }
  startCoordinator()

  const fleet = new Fleet(worker)
  await fleet.start(port, { relays, workers: 3 })

  const happen = async ({ kind, worker: index, duration }: Fault): Promise<void> => {
    const {
      process: { child },
      proxy,
    } = fleet.at(index)
    switch (kind) {
      case 'kill':
        child.kill('SIGKILL')
        return
      case 'pause':
        child.kill('SIGSTOP')
        setTimeout(() => child.kill('SIGCONT'), duration)
        return
      case 'terminate':
        child.kill('SIGTERM')
        return
      case 'start':
        return fleet.add()
      case 'leave':
        return fleet.leave(index)
      case 'killCoordinator':
        coordinator.child.kill('SIGKILL')
        return
      case 'killInWrite': {
        // A write takes a second, so that there is one to be met.
        disk.set({ mode: 'slow', milliseconds: 1_000, files: '.tmp' })
        const latest = performance.now() + 10_000
        while (!isWriting(checkpoints) && performance.now() < latest) await sleep(5)
        coordinator.child.kill('SIGKILL')
        disk.set({})
        return
      }
      case 'fullDisk':
        disk.set({ mode: 'full' })
        setTimeout(() => over || disk.set({}), duration)
        return
      case 'slowDisk':
        disk.set({ mode: 'slow', milliseconds: duration })
        setTimeout(() => over || disk.set({}), 2 * duration)
        return
      default:
        proxy.fault(kind, duration)
    }
  }

  let movedAt = performance.now()
  const last = (key: string) => coordinator.lines.findLast((line) => line.event === key)
  const faults = schedule(seed, steps, options.faults, options.only)
  let next = 0
  let seen = -1
  try {
    for (;;) {
      const { length } = coordinator!.lines
      if (length !== seen) {
        seen = length
        movedAt = performance.now()
      } else if (performance.now() - movedAt > HANGS) {
        throw new Error(`the run hangs at step ${furthest}: ${coordinator!.text.slice(-2_000)}`)
      }
      furthest = Math.max(furthest, Number(last('step')?.['step'] ?? 0))
      const done = last('done')
      if (done?.['finished'] === true) {
        const epochSteps = Number(last('start')?.['stepsPerEpoch'])
        // The ledger's last lines are written when it ends.
        await coordinator!.ended
        checkLedger(path.join(folder, name, 'ledger.jsonl'), { steps, epochSteps })
        return {
          faults: faults.slice(0, next),
          parametersSha256: done['parametersSha256'] as string,
          seconds: (performance.now() - started) / 1000,
        }
      }
      const error = last('error')
      if (error) throw new Error(JSON.stringify(error))
      while (next < faults.length && faults[next].step <= furthest) {
        report({ event: 'fault', ...faults[next], at: furthest })
        await happen(faults[next++])
      }
      await sleep(5)
    }
  } finally {
    over = true
    fleet.kill()
    coordinator!.child.kill('SIGKILL')
  }
}
