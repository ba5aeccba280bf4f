import { PROTOCOL_VERSION } from '@convoy/protocol'
import { execFileSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { Convoy, freePort, scratch, type Line } from './convoy.ts'
import { engines } from './engines.ts'
import { doorBefore, liarBefore } from './liar.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** 15 steps an epoch of 11 leaves. */
const small = [
  ...['--data', 'synthetic', '--limit-train', '480', '--limit-test', '50', '--width', '0.125'],
  ...['--image-size', '8', '--batch-size', '32', '--micro-batch', '3', '--evaluate-every', '0'],
  ...['--runs', folder, '--json'],
]
/** Long enough that both relays are in before it is over. */
const steps = ['--epochs', '30', '--evaluate-every', '4']
/** Three rounds an epoch. */
const rounds = ['--batch-size', '4', '--replicas', '8', '--local-steps', '5', '--epochs', '20']

// Where other work goes on beside them, processes take long to start.
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

const here: Convoy[] = []
/** A process that the test ends. */
function start(...args: string[]): Convoy {
  const started = new Convoy(args.includes('--json') ? args : [...args, '--json'])
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
/** Waits for a step that so many had a part in. */
const untilAll = (run: Convoy, count: number) =>
  run.until(() => stepsOf(run).some(({ workers }) => Number(workers) === count))

const worker = (at: string, name: string, engine: string, ...args: string[]) =>
  start(
    ...['worker', '--coordinator', at, '--worker-name', name, '--engine', engine],
    ...['--precision', 'float32', ...args],
  )

interface Tree {
  readonly run: Convoy
  readonly relays: readonly Convoy[]
  /** Two below each relay, those of the first in front. */
  readonly workers: readonly Convoy[]
}

/** One coordinator, two relays or none, and four workers, in the order in which all are there at the first steps. */
async function tree(options: readonly string[], engine: string, relayCount = 2): Promise<Tree> {
  const port = String(await freePort())
  const above = `ws://127.0.0.1:${port}`
  const relays = ['north', 'south']
    .slice(0, relayCount)
    .map((name) => start('relay', '--upstream', above, '--port', '0', '--worker-name', name))
  const workers: Convoy[] = []
  for (const n of [0, 0, 1, 1])
    workers.push(worker(relays[n] ? await relays[n].address() : above, `w${workers.length}`, engine))
  for (const one of workers) await one.until(({ text }) => text.includes('computing with'))
  return { run: start('coordinator', ...small, ...options, '--port', port), relays, workers }
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

/** What travels in which form, half of it on each engine: such a tree takes most of a minute. */
const forms = {
  onednn: [
    { name: 'steps', options: steps },
    { name: 'rounds, with int8 up and bf16 down', options: [...rounds, '--wire', 'int8', '--down', 'bf16'] },
  ],
  'tfjs-wasm': [
    {
      name: 'steps, with bf16 both ways',
      options: [...steps, '--epochs', '8', '--wire', 'bf16', '--wire-leaves', '2', '--down', 'bf16'],
    },
    { name: 'rounds', options: [...rounds, '--epochs', '10'] },
  ],
}

describe.each(engines)('a tree on $engine', ({ engine, there }) => {
  describe.skipIf(!there)(there ? 'it' : 'it (skipped: the engine is not here)', () => {
    describe.each(forms[engine])('in $name', ({ options }) => {
      it('gives the bits of one worker, though a worker below is killed, and then a relay', async () => {
        const { run, relays, workers } = await tree(options, engine)
        await untilAll(run, 2)
        workers[0].child.kill('SIGKILL')
        await untilStep(run, Number(stepsOf(run).at(-1)!.step) + 5)
        relays[1].child.kill('SIGKILL')
        const done = await run.done()
        expect(run.lines).toContainEqual(expect.objectContaining({ event: 'workerLeft', worker: 'south' }))
        expect(run.lines.some(({ event, worker }) => event === 'workerLeft' && worker === 'north')).toBe(
          false,
        )
        expect(run.lines.filter(({ event }) => event === 'refused')).toEqual([])
        expect(await relays[0].ended).toBe(0)
        expect(await workers[1].ended).toBe(0)
        expect(sumOf(done)).toBe(sumOf(await flat(options, engine)))
      })
    })
  })
})

const [{ there: onednn }] = engines
const engine = onednn ? 'onednn' : 'tfjs-wasm'

/** Steps that a coordinator did, and bytes that it sent to workers. */
async function wireOf(run: Convoy): Promise<{ steps: number; sent: number }> {
  const text = await (await fetch(`${(await run.address()).replace('ws', 'http')}/metrics`)).text()
  const value = (name: string) => Number(new RegExp(`^${name} (.*)$`, 'm').exec(text)![1])
  return { steps: value('convoy_steps_total'), sent: value('convoy_wire_bytes_total{direction="sent"}') }
}

/** Bytes that a coordinator sent a step, over 20 steps in which all have a part. */
async function bytesSent({ run, relays }: Tree): Promise<number> {
  await untilAll(run, relays.length || 4)
  await untilStep(run, Number(stepsOf(run).at(-1)!.step) + 20)
  const before = await wireOf(run)
  await untilStep(run, before.steps + 20)
  const after = await wireOf(run)
  for (const { child } of here) child.kill('SIGKILL')
  return (after.sent - before.sent) / (after.steps - before.steps)
}

// How many sums go up depends on how shares are cut, which is by measured speed.
describe('the bytes that a coordinator sends', () => {
  it.each([
    { name: 'steps', options: ['--epochs', '200'] },
    { name: 'rounds', options: [...rounds, '--epochs', '200'] },
  ])('are about half with two relays before four workers, in $name', async ({ options }) => {
    const plain = await bytesSent(await tree(options, engine, 0))
    const relayed = await bytesSent(await tree(options, engine))
    expect(relayed).toBeLessThan(0.8 * plain)
  })
})

describe('a worker that lies to a relay', () => {
  it('is found with --verify 1, and named above; the run ends with the honest sum', async () => {
    const options = ['--epochs', '12', '--verify', '1']
    const port = String(await freePort())
    const relays = ['north', 'south'].map((name) =>
      start('relay', '--upstream', `ws://127.0.0.1:${port}`, '--port', '0', '--worker-name', name),
    )
    const [north, south] = await Promise.all(relays.map((relay) => relay.address()))
    const liar = await liarBefore(north)
    const workers = [worker(north, 'a', engine), worker(liar.url, 'b', engine), worker(north, 'c', engine)]
    workers.push(worker(south, 'd', engine))
    for (const one of workers) await one.until(({ text }) => text.includes('computing with'))
    const run = start('coordinator', ...small, ...options, '--port', port)
    const done = await run.done()
    expect(liar.lies()).toBeGreaterThan(0)
    expect(run.lines.filter(({ event }) => event === 'dishonest')).toMatchObject([{ worker: 'north/b' }])
    expect(await workers[1].ended).toBe(1)
    liar.close()
    expect(sumOf(done)).toBe(sumOf(await flat(options, engine)))
  })
})

describe('a relay', () => {
  it('hands its work back at Ctrl-C, and its workers look for it again', async () => {
    const { run, relays, workers } = await tree(rounds, engine)
    await untilAll(run, 2)
    relays[0].child.kill('SIGINT')
    expect(await relays[0].ended).toBe(0)
    await run.until(({ lines }) =>
      lines.some(
        ({ event, worker, reason }) => event === 'workerLeft' && worker === 'north' && reason === 'left',
      ),
    )
    await workers[0].until(({ text }) => text.includes('it will be looked for'))
    expect(sumOf(await run.done())).toBe(sumOf(await flat(rounds, engine)))
  })

  it('looks for the coordinator that was killed, while its workers stay', async () => {
    const port = String(await freePort())
    const relay = start('relay', '--upstream', `ws://127.0.0.1:${port}`, '--port', '0')
    const at = await relay.address()
    for (const name of ['a', 'b']) worker(at, name, engine)
    const options = [...small, ...rounds, '--port', port, '--name', 'killed']
    const run = start('coordinator', ...options)
    await run.until((one) => one.lines.some(({ event, step }) => event === 'checkpoint' && Number(step) >= 6))
    run.child.kill('SIGKILL')
    await run.ended
    const done = await start('coordinator', ...options).done()
    expect(relay.lines.filter(({ event }) => event === 'workerJoined')).toHaveLength(2)
    expect(sumOf(done)).toBe(sumOf(await flat(rounds, engine)))
    expect(await relay.ended).toBe(0)
  })

  it('says why the coordinator above does not take it', async () => {
    const run = start('coordinator', ...small, '--port', '0', '--token', 'right-token')
    const above = await run.address()
    const relay = start('relay', '--upstream', above, '--port', '0', '--token', 'wrong-token')
    const at = await relay.address()
    start('worker', '--coordinator', at, '--engine', engine, '--token', 'wrong-token')
    expect(await relay.ended).toBe(1)
    expect(relay.text).toContain('E_TOKEN')
  })

  it('is told that it speaks another version of the protocol', async () => {
    const above = await start('coordinator', ...small, '--port', '0').address()
    const door = await doorBefore(above, (header) =>
      header.kind === 'hello' ? { ...header, version: PROTOCOL_VERSION + 1 } : undefined,
    )
    const relay = start('relay', '--upstream', door.url, '--port', '0')
    worker(await relay.address(), 'a', engine)
    expect(await relay.ended).toBe(1)
    expect(relay.text).toContain('E_PROTOCOL_VERSION')
    door.close()
  })

  it('wants to know where the coordinator is', async () => {
    const relay = start('relay', '--port', '0')
    expect(await relay.ended).toBe(2)
    expect(relay.text).toContain('--upstream')
  })
})

describe('a run', () => {
  /** Long enough for something to happen in. */
  const options = ['--epochs', '20']
  let expected: unknown
  beforeAll(async () => {
    expected = sumOf(await flat(options, engine))
  })
  const coordinator = (...args: string[]) => start('coordinator', ...small, '--port', '0', ...args)
  const relayTo = async (upstream: string, ...args: string[]) => {
    const relay = start('relay', '--upstream', upstream, '--port', '0', ...args)
    return { relay, at: await relay.address() }
  }

  it.each([
    { below: 'TLS', secured: true },
    { below: 'plain', secured: false },
  ])('through a relay over TLS, below which it is $below, has the same bits', async ({ secured }) => {
    const file = (name: string) => path.join(folder, name)
    const [cert, key] = [file('tls.crt'), file('tls.key')]
    const request = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
    const names = ['-subj', '/CN=convoy', '-addext', 'subjectAltName=IP:127.0.0.1']
    execFileSync('openssl', [...request, ...names, '-keyout', key, '-out', cert], { stdio: 'pipe' })
    const server = ['--tls-cert', cert, '--tls-key', key]
    const ca = ['--tls-ca', cert]
    const run = coordinator(...options, ...server)
    const above = await run.address()
    const { relay, at } = await relayTo(above, ...ca, ...(secured ? server : []))
    expect([above, at].map((url) => new URL(url).protocol)).toEqual(['wss:', secured ? 'wss:' : 'ws:'])
    worker(at, 'a', engine, ...(secured ? ca : []))
    expect(sumOf(await run.done())).toBe(expected)
    expect(await relay.ended).toBe(0)
  })

  it('through a relay behind a relay has the same bits, and waits while there is no worker', async () => {
    const run = coordinator(...options)
    const outer = await relayTo(await run.address(), '--worker-name', 'outer')
    const inner = await relayTo(outer.at, '--worker-name', 'inner')
    const first = worker(inner.at, 'a', engine)
    await untilStep(run, 3)
    first.child.kill('SIGKILL')
    await run.until(({ lines }) =>
      lines.some(({ event, reason }) => event === 'waiting' && String(reason).startsWith('no relay')),
    )
    for (const name of ['b', 'c']) worker(inner.at, name, engine)
    expect(sumOf(await run.done())).toBe(expected)
    expect(await Promise.all([outer, inner].map(({ relay }) => relay.ended))).toEqual([0, 0])
  })

  it('of images that a relay has itself is computed without their being sent to it', async () => {
    const data = path.join(folder, 'images')
    mkdirSync(data)
    const images = (count: number) =>
      Uint8Array.from({ length: count * 3073 }, (_, i) => (i % 3073 ? (i * 7919) >> 5 : i % 10))
    writeFileSync(path.join(data, 'data_batch_1.bin'), images(400))
    writeFileSync(path.join(data, 'test_batch.bin'), images(10))
    const args = [
      ...['coordinator', '--data', data, '--width', '0.0625', '--batch-size', '100', '--evaluate-every', '0'],
      ...['--epochs', '1', '--runs', folder, '--port', '0', '--stay'],
    ]
    const outcomes = await Promise.all(
      [['--data', data], []].map(async (own) => {
        const run = start(...args)
        const { at } = await relayTo(await run.address(), ...own)
        worker(at, 'a', engine)
        const done = await run.until(() => run.event('done'))
        const { sent } = await wireOf(run)
        return { sum: sumOf(done), sent }
      }),
    )
    expect(outcomes[0].sum).toBe(outcomes[1].sum)
    // 400 images of 3 kB each.
    expect(outcomes[1].sent - outcomes[0].sent).toBeGreaterThan(400 * 3072)
  })

  it('is not computed by a relay of another numerics class where it is to be reproducible', async () => {
    const run = coordinator(...options, '--reproducible')
    const above = await run.address()
    const first = worker(above, 'a', engine)
    await untilStep(run, 1)
    first.child.kill('SIGKILL')
    const { relay, at } = await relayTo(above)
    worker(at, 'b', engine, '--threads', '2')
    expect(await relay.ended).toBe(1)
    expect(relay.text).toContain('E_NUMERICS')
    worker(above, 'c', engine)
    expect(sumOf(await run.done())).toBe(expected)
  })
})
