import path from 'node:path'
import { chmodSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { buildImage, canShape, findEngine, shapeLink } from '../containers/engine.ts'
import { Convoy } from '../convoy.ts'
import { imageFolder } from './images.ts'
import { Line } from './line.ts'

const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: '4' },
    mbit: { type: 'string', default: '10' },
    delay: { type: 'string', default: '50' },
    steps: { type: 'string', default: '8' },
    rounds: { type: 'string', default: '2' },
    width: { type: 'string', default: '1' },
    sent: { type: 'boolean', default: false },
    containers: { type: 'boolean', default: false },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run bench:link -- [options]: images/s of a coordinator and workers of this machine, each behind a thin and long line of its own, beside
the same on loopback, in turns: with and without rounds, and with fewer bytes
  --workers N  one-thread workers, and replicas of a round (4)
  --mbit N     speed of a line each way, in Mbit/s (10)
  --delay MS   of a line each way (50)
  --steps H    local steps of a round, of 128 images each (8)
  --rounds N   measured, after one that is not; or as many images without rounds, at most 30 steps (2)
  --width X    of All-CNN-C: 1 is 1.37 million parameters (1)
  --sent       workers are sent the images, too; without it they have the data set
  --containers workers in containers of docker/Dockerfile, whose network has the line's speed (tc, as root); its delay stays here
  --json       one JSON object a line`)
  process.exit(0)
}
const BATCH = 128
const [workers, localSteps, rounds] = [values.workers, values.steps, values.rounds].map(Number)

interface Mode {
  readonly name: string
  readonly flags: readonly string[]
  /** Updates that are measured. */
  readonly updates: number
}
const inSteps = Math.min(30, rounds * localSteps * workers)
const inRounds = ['--replicas', String(workers), '--local-steps', String(localSteps)]
const small = ['--wire', 'int8', '--down', 'bf16']
// A share is rounded whole where there are as many nodes as workers.
const share = ['--wire-leaves', String(Math.max(1, Math.floor(BATCH / 16 / workers)))]
const modes: readonly Mode[] = [
  { name: 'steps', flags: [], updates: inSteps },
  { name: 'steps, int8 up and bf16 down', flags: [...small, ...share], updates: inSteps },
  { name: 'rounds', flags: inRounds, updates: rounds },
  { name: 'rounds, int8 up and bf16 down', flags: [...inRounds, ...small], updates: rounds },
]

/** A worker that is to be ended. */
type Ending = () => Promise<unknown>
/** Known to containers that may come to a coordinator that listens for other machines. */
const token = 'of-the-bench'

/** Starts a worker of a coordinator, or of a line to it, at this port. */
type Start = (port: number, thin: boolean, data: readonly string[]) => Ending

const startProcess: Start = (port, _, data) => {
  const at = ['--coordinator', `ws://127.0.0.1:${port}`, '--token', token]
  const worker = new Convoy(['worker', ...at, '--threads', '1', ...data])
  return () => (worker.child.kill('SIGTERM'), worker.ended)
}

/** The same in containers of an image that is built here, and what ends their engine. */
async function openContainers(): Promise<{ start: Start; close: () => Promise<void> }> {
  const { engine, reason } = await findEngine()
  if (!engine) throw new Error(reason)
  if (!canShape()) throw new Error('the speed of a container is limited by nsenter, ip and tc, as root')
  const image = buildImage(engine, 'worker')
  const [network, gateway] =
    engine.command === 'podman' ? ['podman', '(index .Subnets 0)'] : ['bridge', '(index .IPAM.Config 0)']
  const here = engine.run('network', 'inspect', network, '-f', `{{${gateway}.Gateway}}`).trim()
  const start: Start = (port, thin, [option, folder]) => {
    const data = option ? [option, '/data'] : []
    const container = engine
      .run(
        ...['run', '-d', ...(option ? ['-v', `${folder}:/data:ro`] : [])],
        ...[image, '--coordinator', `ws://${here}:${port}`, '--token', token, '--threads', '1', ...data],
      )
      .trim()
    if (thin) shapeLink(engine, container, Number(values.mbit))
    return async () => engine.run('rm', '-f', '-t', '0', container)
  }
  return { start, close: () => engine.close() }
}

const { start, close } = values.containers
  ? await openContainers()
  : { start: startProcess, close: async () => {} }
const host = values.containers ? '0.0.0.0' : '127.0.0.1'

/** Images/s, and the share of the time in which the slowest worker of each update computes. */
async function measure(mode: Mode, thin: boolean) {
  const { folder, remove } = imageFolder(BATCH * localSteps * workers)
  // The user of a container is another.
  chmodSync(folder, 0o755)
  const data = ['--data', folder]
  const coordinator = new Convoy([
    ...['coordinator', ...data, '--width', values.width, '--batch-size', String(BATCH), ...mode.flags],
    ...['--epochs', '100000', '--evaluate-every', '0', '--dead-after', '0', '--port', '0'],
    ...['--host', host, '--token', token, '--runs', path.join(folder, 'runs'), '--json'],
  ])
  const { port } = new URL(await coordinator.address())
  const lines: Line[] = []
  const ending: Ending[] = []
  try {
    for (let n = 0; n < workers; n++) {
      let at = Number(port)
      if (thin) {
        const line = new Line(at, (1e6 * Number(values.mbit)) / 8, Number(values.delay))
        lines.push(line)
        at = await line.open(host)
      }
      ending.push(start(at, thin, values.sent ? [] : data))
    }
    const all = () => coordinator.lines.filter(({ event }) => event === 'step')
    // What was computed before the last one came is not measured, nor the update after it.
    await coordinator.until(
      () => coordinator.lines.filter(({ event }) => event === 'workerJoined').length === workers,
    )
    const first = all().length + 1
    await coordinator.until(() => all().length >= first + mode.updates)
    const taken = all().slice(first, first + mode.updates)
    const sum = (key: string) => taken.reduce((total, step) => total + Number(step[key]), 0)
    return {
      imagesPerSecond: sum('samples') / sum('seconds'),
      computing: sum('computeSeconds') / sum('seconds'),
    }
  } finally {
    coordinator.child.kill('SIGTERM')
    await Promise.all([...ending.map((end) => end()), coordinator.ended])
    for (const line of lines) line.close()
    remove()
  }
}

try {
  for (const mode of modes) {
    const near = await measure(mode, false)
    const far = await measure(mode, true)
    const ratio = far.imagesPerSecond / near.imagesPerSecond
    if (values.json) console.log(JSON.stringify({ mode: mode.name, loopback: near, line: far, ratio }))
    else
      console.log(
        `${mode.name.padEnd(30)} loopback ${near.imagesPerSecond.toFixed(1).padStart(6)} images/s, line ${far.imagesPerSecond.toFixed(1).padStart(6)}: ${(100 * ratio).toFixed(1)} %; computing ${(100 * near.computing).toFixed(0)} and ${(100 * far.computing).toFixed(0)} % of the time`,
      )
  }
} finally {
  await close()
}
