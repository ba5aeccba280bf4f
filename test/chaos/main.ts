import { parseArgs } from 'node:util'
import { scratch } from '../convoy.ts'
import { kinds, optionsOf, relaysOf } from './schedule.ts'
import { disturbed, undisturbed, type ChaosOptions } from './chaos.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    steps: { type: 'string', default: '200' },
    faults: { type: 'string', default: '42' },
    only: { type: 'string', default: kinds.join() },
    engine: { type: 'string', default: 'auto' },
    width: { type: 'string', default: '0.25' },
    data: { type: 'string', default: process.env['CONVOY_DATA'] || 'synthetic' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run chaos -- [options]: a run to which faults happen, beside an undisturbed one
  --seed N      of the faults, of the options of the run (sizes, optimizer, labels, augmentation, rounds, what
                travels half or in a byte), and of how many relays it has (1)
  --seeds N     how many seeds, from that one on (1)
  --steps N     updates (200)
  --faults N    faults in a run (42)
  --only KINDS  of ${kinds.join()} (all)
  --engine NAME of the workers (auto)
  --width X     filters, as a multiple of the paper's (0.25)
  --data SOURCE as for convoy train (CONVOY_DATA, or synthetic)
  --json        one JSON object a line
Exit code 1 where the sums differ.`)
  process.exit(0)
}
const only = kinds.filter((kind) => values.only.split(',').includes(kind))
if (only.length === 0) {
  console.error(`--only takes some of ${kinds.join()}`)
  process.exit(2)
}
const { folder, remove } = scratch()
const say = (line: object) => {
  if (values.json) console.log(JSON.stringify(line))
}
const options: ChaosOptions = {
  seed: Number(values.seed),
  steps: Number(values.steps),
  faults: Number(values.faults),
  only,
  run: [
    ...['--data', values.data, '--limit-train', '2000', '--limit-test', '64', '--width', values.width],
    // 16 updates each, so that images are of every size within the steps that are done.
    ...['--epochs', String(Math.ceil(Number(values.steps) / 16))],
  ],
  worker: ['--engine', values.engine],
  relays: 0,
  folder,
  report: say,
}
let failed = 0
try {
  for (let seed = options.seed; seed < options.seed + Number(values.seeds); seed++) {
    try {
      const run = [...options.run, ...optionsOf(seed, 128)]
      const relays = relaysOf(seed)
      const expected = await undisturbed({ ...options, run })
      const { faults, parametersSha256, seconds } = await disturbed({ ...options, seed, run, relays })
      const equal = parametersSha256 === expected
      if (!equal) failed++
      say({ event: 'summary', seed, relays, faults: faults.length, equal, parametersSha256, seconds })
      if (!values.json)
        console.log(
          `seed ${seed}: ${relays} relays, ${faults.length} faults in ${seconds.toFixed(0)} s, ${equal ? 'the same bits' : 'OTHER BITS'} (${parametersSha256.slice(0, 12)})`,
        )
    } catch (thrown) {
      failed++
      const { message } = thrown as Error
      say({ event: 'summary', seed, equal: false, error: message })
      if (!values.json) console.log(`seed ${seed}: ${message}`)
    }
  }
} finally {
  remove()
}
process.exit(failed > 0 ? 1 : 0)
