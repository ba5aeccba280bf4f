import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { sleeper } from '../elastic/sleeper.ts'
import { Convoy, scratch, type Line } from '../convoy.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    workers: { type: 'string', default: '100,300,1000' },
    replica: { type: 'string', default: '5000' },
    rounds: { type: 'string', default: '4' },
    width: { type: 'string', default: '0.25' },
    wire: { type: 'string', default: 'int8' },
    down: { type: 'string', default: 'bf16' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:scale -- [options]: simulated workers in their hundreds, which sleep for a drawn time and answer with zeros,
against a real coordinator that trains in rounds with a replica for each
  --workers N,N   how many (100,300,1000)
  --replica MS    that a replica takes; a quarter more or less by the worker, a tenth by the round (5000)
  --rounds N      measured, after one that is not (4)
  --width X       of All-CNN-C: 1 is 1.37 million parameters (0.25)
  --wire NAME     float32, bf16 or int8 (int8)
  --down NAME     float32 or bf16 (bf16)
  --json          one JSON object a line`)
  process.exit(0)
}
/** Simulated workers of a process. */
const TOGETHER = 250
/** Samples of a replica's round: so few that the synthetic images suffice. */
const BATCH = 4

/** Processor time of a process in seconds, and its largest resident memory in MB. */
function usage(pid: number): { cpu: number; memory: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  const memory = /VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return { cpu: (Number(fields[11]) + Number(fields[12])) / 100, memory: Number(memory[1]) / 1024 }
}

/** What one coordinator makes of so many workers. */
async function measure(count: number): Promise<Record<string, number>> {
  const { folder, remove } = scratch()
  const rounds = Number(values.rounds) + 1
  const images = count * BATCH
  const coordinator = new Convoy([
    ...['coordinator', '--data', 'synthetic', '--limit-train', String(images), '--limit-test', '10'],
    ...['--width', values.width, '--replicas', String(count), '--batch-size', String(BATCH)],
    ...[
      '--wire',
      values.wire,
      '--down',
      values.down,
      '--epochs',
      String(rounds + 9),
      '--steps',
      String(rounds + 9),
    ],
    ...['--dead-after', '0', '--evaluate-every', '0', '--port', '0', '--runs', folder, '--json'],
  ])
  const url = await coordinator.address()
  const fingerprint = String(coordinator.event('start')!['fingerprint'])
  const children = Array.from({ length: Math.ceil(count / TOGETHER) }, (_, i) =>
    spawn(
      process.execPath,
      [
        process.argv[1],
        'sleepers',
        url,
        fingerprint,
        String(Math.min(TOGETHER, count - i * TOGETHER)),
        values.replica,
        String(i),
      ],
      { stdio: 'inherit' },
    ),
  )
  try {
    const steps = () => coordinator.lines.filter(({ event }) => event === 'step')
    const count = (wanted: number) => coordinator.until(() => steps().length >= wanted)
    await count(1)
    const pid = coordinator.child.pid!
    const [before, started] = [usage(pid), performance.now()]
    await count(rounds)
    const seconds = (performance.now() - started) / 1000
    const after = usage(pid)
    const measured: Line[] = steps().slice(1, rounds)
    return {
      workers: coordinator.lines.filter(({ event }) => event === 'workerJoined').length,
      lost: coordinator.lines.filter(({ event }) => event === 'workerLeft').length,
      stalls: coordinator.lines.filter(({ event }) => event === 'workerStalled').length,
      roundsPerMinute: (60 * measured.length) / seconds,
      secondsPerRound: seconds / measured.length,
      cpuSecondsPerRound: (after.cpu - before.cpu) / measured.length,
      memoryMB: after.memory,
    }
  } finally {
    for (const child of children) child.kill('SIGKILL')
    coordinator.child.kill('SIGKILL')
    await coordinator.ended
    remove()
  }
}

if (positionals[0] === 'sleepers') {
  const [, url, fingerprint, count, milliseconds, process] = positionals
  for (let i = 0; i < Number(count); i++)
    sleeper(url, `s${process}-${i}`, Number(milliseconds) * (0.75 + Math.random() / 2), {
      spread: 0.1,
      fingerprint,
    })
} else {
  for (const count of values.workers.split(',').map(Number)) {
    const result = await measure(count)
    if (values.json) console.log(JSON.stringify(result))
    else
      console.log(
        Object.entries(result)
          .map(([key, value]) => `${key} ${Number(value.toFixed(2))}`)
          .join(', '),
      )
  }
}
