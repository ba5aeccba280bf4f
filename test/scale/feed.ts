import { spawn } from 'node:child_process'
import { parseArgs } from 'node:util'
import { Convoy, scratch } from '../convoy.ts'
import { sleeper } from '../elastic/sleeper.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    step: { type: 'string', default: '10' },
    workers: { type: 'string', default: '1,2,4' },
    width: { type: 'string', default: '1' },
    seconds: { type: 'string', default: '15' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:feed -- [options]: how busy a real coordinator keeps workers with a GPU's times, on this machine's loopback. The
workers sleep for as long as a GPU would compute and answer with zeros; they have the data, so they are sent numbers only
  --step MS      that a worker takes for a batch of 128 (10)
  --workers N,N  how many (1,2,4)
  --width X      of All-CNN-C: 1 is 1.37 million parameters (1)
  --seconds S    measured for each row, after the first steps (15)
  --json         one JSON object a line`)
  process.exit(0)
}
/** Samples of a batch; in steps of several workers each has so many, in rounds each replica. */
const BATCH = 128
/** Steps that are not measured: connections and the coordinator's code get warm. */
const WARMING = 5

interface Mode {
  readonly name: string
  /** Steps of a replica's round; none where a step is an update. */
  readonly localSteps?: number
  readonly flags?: readonly string[]
}
const small = ['--wire', 'int8', '--down', 'bf16']
const modes: Mode[] = [
  { name: 'steps' },
  { name: 'steps, int8 up and bf16 down', flags: [...small, '--wire-leaves', '1'] },
  ...[8, 32, 128].map((localSteps) => ({ name: `rounds of ${localSteps}`, localSteps })),
  ...[8, 32, 128].map((localSteps) => ({
    ...{ name: `rounds of ${localSteps}, int8 up and bf16 down`, localSteps },
    flags: small,
  })),
]

/** The share of the time in which workers compute, and images/s of all together. */
async function measure(workers: number, { localSteps, flags = [] }: Mode) {
  const { folder, remove } = scratch()
  const images = BATCH * workers * (localSteps ?? 1)
  const rounds = ['--replicas', String(workers), '--local-steps', String(localSteps), '--batch-size', '128']
  const steps = ['--batch-size', String(BATCH * workers)]
  const coordinator = new Convoy([
    ...['coordinator', '--data', 'synthetic', '--limit-train', String(images), '--limit-test', '10'],
    ...['--image-size', '8', '--width', values.width, '--micro-batch', String(BATCH)],
    ...[...(localSteps ? rounds : steps), ...flags, '--epochs', '100000', '--dead-after', '0'],
    ...['--evaluate-every', '0', '--port', '0', '--runs', folder, '--json'],
  ])
  const url = await coordinator.address()
  const fingerprint = String(coordinator.event('start')!['fingerprint'])
  const children = Array.from({ length: workers }, (_, i) =>
    spawn(
      process.execPath,
      [
        process.argv[1],
        'sleeper',
        url,
        `w${i}`,
        String(Number(values.step) * (localSteps ?? 1)),
        fingerprint,
      ],
      { stdio: 'inherit' },
    ),
  )
  try {
    const taken = () => coordinator.lines.filter(({ event }) => event === 'step').slice(WARMING)
    const sum = (key: string) => taken().reduce((total, step) => total + Number(step[key]), 0)
    await coordinator.until(() => sum('seconds') > Number(values.seconds))
    const seconds = sum('seconds')
    return {
      busy: sum('computeSeconds') / seconds,
      imagesPerSecond: sum('samples') / seconds,
      update: sum('updateSeconds') / seconds,
      said: coordinator.event('wireBound')?.['localSteps'] as number | undefined,
    }
  } finally {
    for (const child of children) child.kill('SIGKILL')
    coordinator.child.kill('SIGKILL')
    await coordinator.ended
    remove()
  }
}

if (positionals[0] === 'sleeper') {
  const [, url, name, milliseconds, fingerprint] = positionals
  sleeper(url, name, Number(milliseconds), { fingerprint })
} else
  for (const workers of values.workers.split(',').map(Number))
    for (const mode of modes) {
      const row = await measure(workers, mode)
      if (values.json) console.log(JSON.stringify({ workers, mode: mode.name, ...row }))
      else
        console.log(
          `${String(workers).padStart(2)} ${mode.name.padEnd(36)} ${(100 * row.busy).toFixed(1).padStart(5)} % busy ${row.imagesPerSecond.toFixed(0).padStart(6)} images/s` +
            (row.said ? `  (advised: rounds of ${row.said})` : ''),
        )
    }
