import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { sleeper } from '../elastic/sleeper.ts'
import { Convoy, type Line } from '../convoy.ts'
import { imageFolder } from './images.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    workers: { type: 'string', default: '100,300,1000' },
    relays: { type: 'string', default: '0' },
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
  --relays R      real relays between these and the coordinator, with as many workers each; measured once their shares have settled (0)
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
/** Samples of a replica's round. */
const BATCH = 4

/** Rounds after the first in which all relays have a part, until their shares follow from what they can do. */
const SETTLING = 3

/** Processor time of a process in seconds, and its largest resident memory in MB. */
function usage(pid: number): { cpu: number; memory: number } {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ')
  const memory = /VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!
  return { cpu: (Number(fields[11]) + Number(fields[12])) / 100, memory: Number(memory[1]) / 1024 }
}

/** The same of several processes together. */
function usageOf(all: readonly Convoy[]): { cpu: number; memory: number } {
  const each = all.map(({ child }) => usage(child.pid!))
  const sum = (key: 'cpu' | 'memory') => each.reduce((total, one) => total + one[key], 0)
  return { cpu: sum('cpu'), memory: sum('memory') }
}

/** MB that a coordinator, or a relay, sent to its workers and got from them. */
async function traffic(url: string): Promise<{ sent: number; received: number }> {
  const text = await (await fetch(`${url.replace('ws', 'http')}/metrics`)).text()
  const of = (direction: string) =>
    Number(new RegExp(`^convoy_wire_bytes_total{direction="${direction}"} (.*)$`, 'm').exec(text)![1]) / 1e6
  return { sent: of('sent'), received: of('received') }
}

const events = (processes: readonly Convoy[], name: string): Line[] =>
  processes.flatMap(({ lines }) => lines.filter(({ event }) => event === name))

/** What one coordinator makes of so many workers. */
async function measure(count: number): Promise<Record<string, number>> {
  const { folder, remove } = imageFolder(count * BATCH)
  const rounds = Number(values.rounds)
  const coordinator = new Convoy([
    ...['coordinator', '--data', folder, '--width', values.width, '--wire', values.wire],
    ...['--down', values.down, '--replicas', String(count), '--batch-size', String(BATCH)],
    ...['--epochs', '100000', '--dead-after', '0', '--evaluate-every', '0', '--port', '0'],
    ...['--runs', path.join(folder, 'runs'), '--json'],
  ])
  const url = await coordinator.address()
  const fingerprint = String(coordinator.event('start')!['fingerprint'])
  const relays = Array.from({ length: Number(values.relays) }, (_, i) => {
    const above = ['--upstream', url, '--worker-name', `r${i}`, '--data', folder]
    return new Convoy(['relay', ...above, '--port', '0', '--json'])
  })
  /** Those that workers connect to. */
  const doors = relays.length > 0 ? relays : [coordinator]
  const addresses = await Promise.all(doors.map((door) => door.address()))
  const sleepers = Array.from({ length: Math.ceil(count / TOGETHER) }, (_, i) => {
    const here = String(Math.min(TOGETHER, count - i * TOGETHER))
    const args = [process.argv[1], 'sleepers', addresses.join(), fingerprint, here, values.replica, String(i)]
    return spawn(process.execPath, args, { stdio: 'inherit' })
  })
  try {
    const steps = () => events([coordinator], 'step')
    await coordinator.until(() => steps().some(({ workers }) => Number(workers) >= relays.length))
    const first = steps().length + (relays.length > 0 ? SETTLING : 0)
    await coordinator.until(() => steps().length >= first)
    const stalled = () => events([coordinator, ...relays], 'workerStalled').length
    const stalledBefore = stalled()
    const [started, wire] = [performance.now(), await traffic(url)]
    const [before, beforeRelays] = [usageOf([coordinator]), usageOf(relays)]
    await coordinator.until(() => steps().length >= first + rounds)
    const seconds = (performance.now() - started) / 1000
    const [after, afterRelays, carried] = [usageOf([coordinator]), usageOf(relays), await traffic(url)]
    return {
      workers: events(doors, 'workerJoined').length,
      lost: events([coordinator, ...relays], 'workerLeft').length,
      stalls: stalled() - stalledBefore,
      roundsPerMinute: (60 * rounds) / seconds,
      secondsPerRound: seconds / rounds,
      cpuSecondsPerRound: (after.cpu - before.cpu) / rounds,
      memoryMB: after.memory,
      sentMBPerRound: (carried.sent - wire.sent) / rounds,
      receivedMBPerRound: (carried.received - wire.received) / rounds,
      ...(relays.length > 0 && {
        relaysCpuSecondsPerRound: (afterRelays.cpu - beforeRelays.cpu) / rounds,
        relaysMemoryMB: afterRelays.memory,
      }),
    }
  } finally {
    const children = [...sleepers, ...[...relays, coordinator].map(({ child }) => child)]
    for (const child of children) child.kill('SIGKILL')
    await Promise.all([...relays, coordinator].map(({ ended }) => ended))
    remove()
  }
}

if (positionals[0] === 'sleepers') {
  const [, addresses, fingerprint, count, milliseconds, process] = positionals
  const doors = addresses.split(',')
  for (let i = 0; i < Number(count); i++)
    sleeper(doors[i % doors.length], `s${process}-${i}`, Number(milliseconds) * (0.75 + Math.random() / 2), {
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
