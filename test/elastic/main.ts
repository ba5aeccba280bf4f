import { execFileSync, spawn, type ChildProcess } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { Convoy, scratch, type Line } from '../convoy.ts'
import { sleeper } from './sleeper.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    leaf: { type: 'string', default: '100' },
    steps: { type: 'string', default: '60' },
    data: { type: 'string', default: process.env['CONVOY_DATA'] || 'synthetic' },
    engine: { type: 'string', default: 'auto' },
    joins: { type: 'string', default: '15' },
    only: { type: 'string' },
    pin: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:elastic -- [options]: what a stopped, a slow and a new worker do to the speed of the others
  --leaf MS      that a simulated worker takes for a leaf (100)
  --steps N      updates over which a speed is measured (60)
  --data SOURCE  for the real workers, as for convoy train (CONVOY_DATA, or synthetic)
  --engine NAME  of the real workers (auto)
  --joins N      workers that join, one after another (15)
  --only WHAT    speed (a stopped and a slow worker) or join
  --pin          joining workers to the second core, all else to the first (with taskset): as if on machines of their own
  --json         one JSON object a line`)
  process.exit(0)
}
const leaf = Number(values.leaf)
const measured = Number(values.steps)
/** Updates after a change of the workers until the speed is taken to have settled. */
const SETTLING = 20
/** Updates for the speed of a worker alone, which has nothing to settle. */
const ALONE = 8

const steps = (convoy: Convoy): Line[] => convoy.lines.filter(({ event }) => event === 'step')
const joined = (convoy: Convoy, count: number) =>
  convoy.until(() => convoy.lines.filter(({ event }) => event === 'workerJoined').length >= count)
const { folder, remove } = scratch()

/** A coordinator for `wanted` simulated workers: images/s over `measured` updates, once `change` has settled. */
async function speed(
  leafTimes: number[],
  change: (workers: ChildProcess[]) => void = () => {},
): Promise<number> {
  const run = ['--data', 'synthetic', '--limit-train', '512', '--limit-test', '64', '--width', '0.1']
  const settings = ['--port', '0', '--runs', folder, '--evaluate-every', '0', '--json']
  const coordinator = new Convoy(['coordinator', ...run, ...settings])
  const address = await coordinator.address()
  const workers = leafTimes.map((ms, i) =>
    spawn(process.execPath, [process.argv[1], 'sleeper', address, `w${i}`, String(ms)], { stdio: 'inherit' }),
  )
  const [settling, count] = leafTimes.length === 1 ? [2, ALONE] : [SETTLING, measured]
  try {
    await joined(coordinator, workers.length)
    await coordinator.until(() => steps(coordinator).length >= settling)
    change(workers)
    const from = steps(coordinator).length + settling
    await coordinator.until(() => steps(coordinator).length >= from + count)
    const taken = steps(coordinator).slice(from, from + count)
    const sum = (key: string) => taken.reduce((total, step) => total + Number(step[key]), 0)
    return sum('samples') / sum('seconds')
  } finally {
    for (const worker of workers) worker.kill('SIGKILL')
    coordinator.child.kill('SIGKILL')
  }
}

/** Updates of each of the two stretches before a join in which nobody joins. */
const CALM = 3
/** Milliseconds between two looks at the coordinator's metrics, which say when a worker's first gradient was taken. */
const POLL = 50

interface Join {
  /** From the start of the worker's process to its first gradient. */
  readonly seconds: number
  /** The mean update of the other while it starts, by that before, in which nobody joined. */
  readonly ratio: number
  /** The same of two stretches in which nobody joined: what the noise of the machine is. */
  readonly noise: number
}

/**
 * Real workers that join another at full width, one after the other, each for a moment. Updates are small, so that several
 * whole ones fall into a start; what the other computed alone is known from the ledger.
 */
async function join(rounds: number): Promise<Join[]> {
  const run = ['--data', values.data, '--limit-train', '2000', '--limit-test', '64', '--evaluate-every', '0']
  const small = ['--batch-size', '32', '--ledger', '--name', 'joined']
  const coordinator = new Convoy(['coordinator', ...run, ...small, '--port', '0', '--runs', folder, '--json'])
  const address = await coordinator.address()
  /** Keeps a process, and what it starts, to a core. */
  const pin = (convoy: Convoy, core: 0 | 1) => {
    if (values.pin) execFileSync('taskset', ['-acp', String(core), String(convoy.child.pid)])
    return convoy
  }
  const start = (name: string) =>
    new Convoy(['worker', '--coordinator', address, '--engine', values.engine, '--worker-name', name])
  pin(coordinator, 0)
  const first = pin(start('first'), 0)
  // It is asked all the time, since that costs a little too.
  let metrics = ''
  const ask = async () => {
    metrics = await (await fetch(`${address.replace('ws', 'http')}/metrics`)).text()
  }
  const asking = setInterval(() => void ask().catch(() => {}), POLL)
  const count = () => steps(coordinator).length
  const until = (step: number) => coordinator.until(() => count() >= step)
  const seen: { from: number; to: number; seconds: number }[] = []
  let second: Convoy | undefined
  try {
    await until(8)
    for (let round = 0; round < rounds; round++) {
      // The step at hand, in which the last one left, and one more.
      const from = count() + 2
      await until(from + 2 * CALM)
      const began = performance.now()
      second = pin(start(`second-${round}`), 1)
      while (!new RegExp(`worker_samples_total\\{worker="second-${round}"\\} [1-9]`).test(metrics))
        await sleep(5)
      seen.push({ from, to: count() + 1, seconds: (performance.now() - began) / 1000 })
      second.child.kill('SIGKILL')
      await second.ended
    }
    await until(seen.at(-1)!.to)
    const taken = steps(coordinator).map((step) => Number(step['seconds']))
    const alone = readFileSync(path.join(folder, 'joined', 'ledger.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => (JSON.parse(line) as { nodes: { worker: string }[] }).nodes)
      .map((nodes) => nodes.every(({ worker }) => worker === 'first'))
    const mean = (numbers: number[]) => numbers.reduce((sum, n) => sum + n, 0) / numbers.length
    return seen.map(({ from, to, seconds }) => {
      const at = from + 2 * CALM
      const [one, two] = [taken.slice(from, from + CALM), taken.slice(from + CALM, at)]
      // Not the update in which the process was started, and none in which it took part.
      const meanwhile = taken.slice(at + 1, to).filter((_, i) => alone[at + 1 + i])
      return {
        seconds,
        ratio: mean(meanwhile) / mean([...one, ...two]),
        noise: mean(two) / mean(one),
      }
    })
  } finally {
    clearInterval(asking)
    for (const worker of [first, second]) worker?.child.kill('SIGKILL')
    coordinator.child.kill('SIGKILL')
  }
}

if (positionals[0] === 'sleeper') {
  const [, address, name, milliseconds] = positionals
  sleeper(address, name, Number(milliseconds))
} else {
  const only = (what: string) => values.only === what
  const say = (line: object) => values.json && console.log(JSON.stringify(line))
  try {
    const summary: Record<string, unknown> = { event: 'summary' }
    const told: string[] = []
    if (!only('join')) {
      const two = await speed([leaf, leaf])
      say({ event: 'speed', workers: 2, imagesPerSecond: two })
      const stopped = await speed([leaf, leaf, leaf], ([one]) => one.kill('SIGSTOP'))
      say({ event: 'speed', workers: '3, one stopped', imagesPerSecond: stopped })
      const one = await speed([leaf])
      const fifth = await speed([5 * leaf])
      const slow = await speed([leaf, leaf, 5 * leaf])
      say({ event: 'speed', workers: '3, one 5 times slower', imagesPerSecond: slow })
      const [stoppedVsTwo, slowVsSum] = [stopped / two, slow / (2 * one + fifth)]
      Object.assign(summary, { stoppedVsTwo, slowVsSum })
      told.push(
        `one of three workers stopped: ${(100 * stoppedVsTwo).toFixed(1)} % of the speed of two`,
        `one of three workers 5 times slower: ${(100 * slowVsSum).toFixed(1)} % of the sum of their speeds`,
      )
    }
    if (!only('speed')) {
      const joins = await join(Number(values.joins))
      for (const one of joins) say({ event: 'join', ...one })
      const spread = (key: keyof Join) => {
        // Where no whole update fell into a start, there is no ratio.
        const sorted = joins
          .map((one) => one[key])
          .filter(Number.isFinite)
          .sort((a, b) => a - b)
        const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))]
        return { median: sorted[sorted.length >> 1], from: at(0.25), to: at(0.75) }
      }
      const [seconds, ratio, noise] = [spread('seconds'), spread('ratio'), spread('noise')]
      Object.assign(summary, { joinSeconds: seconds, stepWhileJoining: ratio, stepWithoutJoin: noise })
      const text = ({ median, from, to }: typeof ratio) =>
        `${median.toFixed(2)} (the middle half: ${from.toFixed(2)} to ${to.toFixed(2)})`
      told.push(
        `a new worker's first gradient: ${text(seconds)} s after the start of its process, of ${joins.length}`,
        `an update of the other meanwhile: ${text(ratio)} times as long as before; where nobody joins: ${text(noise)}`,
      )
    }
    if (values.json) say(summary)
    else console.log(told.join('\n'))
  } finally {
    remove()
  }
}
