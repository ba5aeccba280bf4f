import { parseArgs } from 'node:util'
import { scratch } from '../convoy.ts'
import { fuzz } from './fuzz.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    frames: { type: 'string', default: '50000' },
    connections: { type: 'string', default: '10000' },
    rate: { type: 'string', default: '3000' },
    calm: { type: 'string', default: '20' },
    engine: { type: 'string', default: 'onednn' },
    width: { type: 'string', default: '0.125' },
    data: { type: 'string', default: process.env['CONVOY_DATA'] || 'synthetic' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run fuzz -- [options]: a training that hostile peers flood, beside an undisturbed one
  --seed N         of the frames (1)
  --frames N       malformed frames on connections with the token (50000; the full run has 1000000)
  --connections N  connections without it (10000)
  --rate N         frames a second at most (3000)
  --calm N         seconds before and after the flood, to compare with (20)
  --engine NAME    of the worker (onednn)
  --width X        filters, as a multiple of the paper's (0.125)
  --data SOURCE    as for convoy train (CONVOY_DATA, or synthetic)
  --json           the summary as one JSON object
Exit code 1 where the sums differ or the coordinator ends.`)
  process.exit(0)
}
const { folder, remove } = scratch()
let ok = false
let toldAt = -Infinity
try {
  const outcome = await fuzz({
    seed: Number(values.seed),
    frames: Number(values.frames),
    connections: Number(values.connections),
    rate: Number(values.rate),
    calm: Number(values.calm),
    run: ['--data', values.data, '--limit-test', '64', '--width', values.width],
    worker: ['--engine', values.engine],
    folder,
    report({ frames, connections, seconds }) {
      if (performance.now() - toldAt < 5_000) return
      toldAt = performance.now()
      const share = Math.min(frames / Number(values.frames), connections / Number(values.connections) || 1)
      const left = share > 0 ? Math.round((seconds * (1 - share)) / share) : NaN
      process.stderr.write(
        `${Math.round(seconds)} s: ${frames} of ${values.frames} frames, ${connections} of ${values.connections} connections, ETA ${left} s\n`,
      )
    },
  })
  ok = outcome.equal
  if (values.json) console.log(JSON.stringify({ event: 'summary', ...outcome }))
  else console.log(outcome, ok ? 'the same bits' : 'OTHER BITS')
} catch (error) {
  const { message } = error as Error
  if (values.json) console.log(JSON.stringify({ event: 'summary', equal: false, error: message }))
  else console.error(message)
} finally {
  remove()
}
process.exit(ok ? 0 : 1)
