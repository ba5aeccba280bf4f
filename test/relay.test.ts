import { createEngine } from '@convoy/engines'
import { createServer, type AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { Convoy, scratch, type Line } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** 15 steps an epoch of 11 leaves, or three rounds. */
const small = [
  ...[
    '--data',
    'synthetic',
    '--limit-train',
    '480',
    '--limit-test',
    '50',
    '--width',
    '0.125',
    '--image-size',
    '8',
  ],
  ...['--batch-size', '32', '--micro-batch', '3', '--evaluate-every', '2', '--epochs', '8'],
  ...['--runs', folder, '--json'],
]
const rounds = ['--batch-size', '4', '--replicas', '8', '--local-steps', '5', '--epochs', '16']

// Where other work goes on beside them, processes take long to start.
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

const here: Convoy[] = []
/** A process that the test ends. */
function start(...args: string[]): Convoy {
  const started = new Convoy([...args, '--json'])
  here.push(started)
  return started
}
afterEach(() => {
  for (const { child } of here.splice(0)) child.kill('SIGKILL')
})

const sumOf = ({ parametersSha256 }: Line) => parametersSha256
const stepsOf = ({ lines }: Convoy) => lines.filter(({ event }) => event === 'step')
const untilStep = (run: Convoy, wanted: number) =>
  run.until(() => stepsOf(run).some(({ step }) => Number(step) >= wanted))
const addressOf = async (convoy: Convoy) =>
  (await convoy.until((one) => one.event('listening')))['url'] as string

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

interface Tree {
  readonly run: Convoy
  readonly relays: readonly Convoy[]
  /** Two below each relay. */
  readonly workers: readonly Convoy[]
}

/** One coordinator, two relays, four workers, in the order in which the first step has them all. */
async function tree(
  options: readonly string[],
  engine: string,
  relayOptions: readonly string[] = [],
): Promise<Tree> {
  const port = String(await freePort())
  const above = `ws://127.0.0.1:${port}`
  const relays = ['north', 'south'].map((name) =>
    start('relay', '--upstream', above, '--port', '0', '--worker-name', name, ...relayOptions),
  )
  const workers: Convoy[] = []
  for (const relay of relays)
    for (const n of [1, 2])
      workers.push(
        start(
          'worker',
          '--coordinator',
          await addressOf(relay),
          '--worker-name',
          `w${n}`,
          '--engine',
          engine,
          '--threads',
          '1',
          '--precision',
          'float32',
        ),
      )
  for (const worker of workers) await worker.until(({ text }) => text.includes('computing with'))
  const run = start('coordinator', ...small, ...options, '--port', port)
  return { run, relays, workers }
}

const flat = (options: readonly string[], engine: string) =>
  start(
    'train',
    ...small,
    ...options,
    '--port',
    '0',
    '--engine',
    engine,
    '--precision',
    'float32',
    '--workers',
    '1',
  ).done()

const runs = (engine: 'onednn' | 'tfjs-wasm') =>
  createEngine({ engine, precision: 'float32', threads: 1, device: 0, gpu: false }).then(
    (created) => {
      created.dispose()
      return true
    },
    () => false,
  )
const engines = [
  { engine: 'onednn', there: await runs('onednn') },
  { engine: 'tfjs-wasm', there: await runs('tfjs-wasm') },
] as const

describe.each(engines)('a tree on $engine', ({ engine, there }) => {
  describe.skipIf(!there)(there ? 'it' : 'it (skipped: the engine is not here)', () => {
    describe.each([
      { name: 'steps', options: [] },
      { name: 'rounds', options: rounds },
    ])('in $name', ({ options }) => {
      let expected: Line
      beforeAll(async () => {
        expected = await flat(options, engine)
      })

      it('gives the bits of one worker, whether a relay or a worker below is killed or not', async () => {
        const { run, relays, workers } = await tree(options, engine)
        await untilStep(run, 3)
        workers[0].child.kill('SIGKILL')
        await untilStep(run, 12)
        relays[1].child.kill('SIGKILL')
        expect(sumOf(await run.done())).toBe(sumOf(expected))
        expect(stepsOf(run).some(({ workers }) => workers === 2)).toBe(true)
        expect(run.lines).toContainEqual(expect.objectContaining({ event: 'workerLeft', worker: 'south' }))
        expect(run.lines.some(({ event, worker }) => event === 'workerLeft' && worker === 'north')).toBe(
          false,
        )
        expect(await relays[0].ended).toBe(0)
        expect(await workers[1].ended).toBe(0)
      })
    })
  })
})
