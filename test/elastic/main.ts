import { spawn, type ChildProcess } from 'node:child_process'
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
  --json         one JSON object a line`)
  process.exit(0)
}
const leaf = Number(values.leaf)
const measured = Number(values.steps)
/** Updates after a change of the workers until the speed is taken to have settled. */
const SETTLING = 20
/** Updates for the speed of a worker alone, which has nothing to settle. */
const ALONE = 8

const middle = (numbers: number[]) => numbers.sort((a, b) => a - b)[numbers.length >> 1]
const steps = (convoy: Convoy): Line[] => convoy.lines.filter(({ event }) => event === 'step')
const url = (convoy: Convoy) => convoy.until(() => convoy.event('listening')?.['url'] as string | undefined)
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
  const address = await url(coordinator)
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

/**
 * A real worker that joins another at full width: seconds from the start of its process to its first gradient, and what
 * the other's updates take meanwhile, as a share of before.
 */
async function join(): Promise<{ seconds: number; ratio: number }> {
  const run = ['--data', values.data, '--limit-train', '2000', '--limit-test', '64', '--evaluate-every', '0']
  const coordinator = new Convoy(['coordinator', ...run, '--port', '0', '--runs', folder, '--json'])
  const address = await url(coordinator)
  const start = (name: string) =>
    new Convoy(['worker', '--coordinator', address, '--engine', values.engine, '--worker-name', name])
  const workers = [start('first')]
  try {
    await coordinator.until(() => steps(coordinator).length >= 8)
    const alone = middle(
      steps(coordinator)
        .slice(3)
        .map(({ seconds }) => Number(seconds)),
    )
    const before = steps(coordinator).length
    const began = performance.now()
    workers.push(start('second'))
    for (;;) {
      const page = await fetch(`${address.replace('ws', 'http')}/metrics`)
      const samples = /convoy_worker_samples_total\{worker="second"\} (\d+)/.exec(await page.text())?.[1]
      if (Number(samples ?? 0) > 0) break
      await sleep(20)
    }
    const seconds = (performance.now() - began) / 1000
    const during = steps(coordinator)
      .slice(before, -1)
      .map((step) => Number(step['seconds']))
    return { seconds, ratio: during.length > 0 ? middle(during) / alone : NaN }
  } finally {
    for (const worker of workers) worker.child.kill('SIGKILL')
    coordinator.child.kill('SIGKILL')
  }
}

if (positionals[0] === 'sleeper') {
  const [, address, name, milliseconds] = positionals
  sleeper(address, name, Number(milliseconds))
} else {
  const say = (line: object) => values.json && console.log(JSON.stringify(line))
  try {
    const two = await speed([leaf, leaf])
    say({ event: 'speed', workers: 2, imagesPerSecond: two })
    const stopped = await speed([leaf, leaf, leaf], ([one]) => one.kill('SIGSTOP'))
    say({ event: 'speed', workers: '3, one stopped', imagesPerSecond: stopped })
    const one = await speed([leaf])
    const fifth = await speed([5 * leaf])
    const slow = await speed([leaf, leaf, 5 * leaf])
    say({ event: 'speed', workers: '3, one 5 times slower', imagesPerSecond: slow })
    const joins = []
    for (let i = 0; i < 5; i++) joins.push(await join())
    const joinSeconds = middle(joins.map(({ seconds }) => seconds))
    const stepWhileJoining = middle(joins.map(({ ratio }) => ratio))
    const [stoppedVsTwo, slowVsSum] = [stopped / two, slow / (2 * one + fifth)]
    const summary = { event: 'summary', stoppedVsTwo, slowVsSum, joinSeconds, stepWhileJoining }
    if (values.json) say(summary)
    else {
      console.log(`one of three workers stopped: ${(100 * stoppedVsTwo).toFixed(1)} % of the speed of two
one of three workers 5 times slower: ${(100 * slowVsSum).toFixed(1)} % of the sum of their speeds
a new worker's first gradient: ${joinSeconds.toFixed(2)} s after the start of its process (median of ${joins.length})
an update of the other meanwhile: ${stepWhileJoining.toFixed(2)} times as long as before`)
    }
  } finally {
    remove()
  }
}
