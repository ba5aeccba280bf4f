import { History, readMetrics } from '@convoy/coordinator'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { chart } from '../../apps/cli/src/chart.ts'
import { Convoy, scratch } from '../convoy.ts'
import { standalone } from '../svg.ts'

const { values } = parseArgs({
  options: {
    steps: { type: 'string', default: '391' },
    seed: { type: 'string', default: '1' },
    data: { type: 'string', default: process.env['CONVOY_DATA'] || 'synthetic' },
    runs: { type: 'string' },
    svg: { type: 'string' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:precision -- [options]: the cost curves of oneDNN's bf16 and float32 from one seed, side by side
  --steps N      updates of 128 samples (391: an epoch of CIFAR-10)
  --seed N       of the runs (1)
  --data SOURCE  as for convoy train (CONVOY_DATA, or synthetic)
  --runs DIR     where the runs float32 and bf16 are kept; those that are there are not trained again
  --svg FILE     draw the curves
  --json         the summary as one JSON object`)
  process.exit(0)
}

const { folder, remove } = scratch()
const runs = path.resolve(values.runs ?? folder)
const steps = Number(values.steps)

/** Mean cost of the last 1,000 samples after each step, from when there are as many. */
async function curve(precision: string): Promise<Map<number, number>> {
  const file = path.join(runs, precision, 'metrics.jsonl')
  const read = async () => {
    const costs = new Map<number, number>()
    const history = new History()
    let samples = 0
    await readMetrics(file, (event, time) => {
      history.hear(event, time)
      if (event.event !== 'step') return
      samples += event.samples
      if (samples >= 1_000 && event.step <= steps) costs.set(event.step, history.point!.cost1000)
    }).catch(() => {})
    return costs
  }
  const kept = await read()
  if (kept.has(steps)) return kept
  const run = ['--data', values.data, '--runs', runs, '--name', precision, '--steps', values.steps]
  const how = ['--precision', precision, '--engine', 'onednn', '--seed', values.seed, '--evaluate-every', '0']
  await new Convoy(['train', ...run, ...how, '--port', '0', '--json']).done()
  return read()
}

try {
  mkdirSync(runs, { recursive: true })
  const [float32, bf16] = [await curve('float32'), await curve('bf16')]
  const both = [...float32.keys()].filter((step) => bf16.has(step))
  const off = both.map((step) => Math.abs(bf16.get(step)! / float32.get(step)! - 1))
  const summary = {
    event: 'summary',
    steps: both.at(-1),
    largest: Math.max(...off),
    mean: off.reduce((sum, one) => sum + one, 0) / off.length,
    last: { float32: float32.get(both.at(-1)!), bf16: bf16.get(both.at(-1)!) },
  }
  console.log(values.json ? JSON.stringify(summary) : summary)
  if (values.svg) {
    const figure = chart(
      [
        { name: 'float32', colour: '#1f62c9', steps: both, values: both.map((step) => float32.get(step)!) },
        { name: 'bf16', colour: '#c05a0b', steps: both, values: both.map((step) => bf16.get(step)!) },
      ],
      { title: 'Mean cost of the last 1,000 samples, nats', show: String },
    )!
    const legend = '<tspan fill="#1f62c9">float32</tspan> and <tspan fill="#c05a0b">bf16</tspan>'
    writeFileSync(values.svg, `${standalone(figure, legend)}\n`)
  }
} finally {
  remove()
}
