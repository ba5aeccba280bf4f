import { PROTOCOL_VERSION, encodeFrame, decodeFrame } from '@convoy/protocol'
import { readdirSync, truncateSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket } from 'ws'
import { checkLedger, faultyDisk } from './chaos/chaos.ts'
import { liarBefore } from './liar.ts'
import { childrenOf, Convoy, scratch, type Line } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** A run of some seconds that still has dropout, augmentation, a smaller last batch and a smaller last leaf. */
const small = [
  ...['--data', 'synthetic', '--limit-train', '450', '--limit-test', '70', '--width', '0.125'],
  ...['--epochs', '2', '--batch-size', '100', '--micro-batch', '8', '--flip', '--shift', '2'],
  ...['--runs', folder, '--port', '0', '--json'],
]
const train = (...args: string[]) => new Convoy(['train', ...small, ...args])

describe('convoy train', () => {
  let expected: Line
  beforeAll(async () => {
    expected = await train('--workers', '2', '--name', 'reference').done()
  })

  it('ends with the done line', () => {
    expect(expected).toMatchObject({ event: 'done', step: 10, epoch: 2, mixed: false, finished: true })
    expect(expected['parametersSha256']).toMatch(/^[0-9a-f]{64}$/)
    for (const key of ['imagesPerSecond', 'trainLoss', 'testAccuracy'])
      expect(expected[key]).toBeTypeOf('number')
  })

  it.each(['1', '3'])('gives the same bits with %s workers', async (workers) => {
    const done = await train('--workers', workers).done()
    expect(done['parametersSha256']).toBe(expected['parametersSha256'])
    expect(done['testAccuracy']).toBe(expected['testAccuracy'])
  })

  // What is verified travels whole.
  it.each([
    { options: [] },
    { options: ['--optimizer', 'muon', '--wire', 'bf16', '--wire-leaves', '2', '--down', 'bf16'] },
  ])('gives the same bits in two messages as in one ($options)', async ({ options }) => {
    const inTwo = await train('--workers', '2', ...options).done()
    const inOne = await train('--workers', '2', '--verify', '0.01', ...options).done()
    expect(inOne['parametersSha256']).toBe(inTwo['parametersSha256'])
  })

  it('gives the same bits when one of three workers is killed half-way, and replaces it', async () => {
    const run = train('--workers', '3')
    await run.until(() => run.lines.some(({ event, step }) => event === 'step' && Number(step) >= 4))
    const [victim] = await childrenOf(run.child.pid!)
    process.kill(victim, 'SIGKILL')
    const done = await run.done()
    expect(run.event('workerLeft')).toBeDefined()
    expect(done['parametersSha256']).toBe(expected['parametersSha256'])
  })

  it('saves on Ctrl-C, exits with 130, and goes on to the same bits', async () => {
    const first = train('--workers', '2', '--name', 'interrupted')
    await first.until(() => first.lines.some(({ event, step }) => event === 'step' && Number(step) >= 3))
    first.child.kill('SIGINT')
    expect(await first.ended).toBe(130)
    expect(first.lines.at(-1)).toMatchObject({ event: 'done', finished: false })
    const second = new Convoy(['train', '--name', 'interrupted', '--runs', folder, '--port', '0', '--json'])
    const done = await second.done()
    expect(Number(second.event('start')?.['resumedAt'])).toBeGreaterThanOrEqual(3)
    expect(done['parametersSha256']).toBe(expected['parametersSha256'])
    expect(done['step']).toBe(10)
    // The windows of the cost go on, too: 900 samples are all in the small one.
    const steps = [...first.lines, ...second.lines].filter(({ event }) => event === 'step')
    const sum = steps.reduce((total, { loss, samples }) => total + Number(loss) * Number(samples), 0)
    expect(steps.at(-1)!['cost1000']).toBeCloseTo(sum / 900, 5)
  })

  it('passes over a torn checkpoint, and still gives the same bits', async () => {
    await train(
      '--workers',
      '2',
      '--name',
      'torn',
      '--checkpoint-every',
      '0.01',
      '--keep-checkpoints',
      '9',
      '--steps',
      '7',
    ).done()
    const checkpoints = path.join(folder, 'torn', 'checkpoints')
    const newest = readdirSync(checkpoints)
      .sort((a, b) => Number(/\d+/.exec(b)) - Number(/\d+/.exec(a)))
      .at(0)!
    truncateSync(path.join(checkpoints, newest), 1000)
    const run = train('--workers', '2', '--name', 'torn')
    const done = await run.done()
    expect(run.event('checkpointPassedOver')?.['message']).toMatch(/torn/)
    expect(done['parametersSha256']).toBe(expected['parametersSha256'])
  })

  it('stops at an accuracy, with the bits of that step, and stays there', async () => {
    const whole = train('--workers', '2', '--epochs', '5')
    await whole.done()
    const tests = whole.lines.filter(({ event }) => event === 'test')
    const until = Math.max(...tests.slice(0, 4).map(({ testAccuracy }) => Number(testAccuracy)))
    const { step, epoch } = tests.find(({ testAccuracy }) => Number(testAccuracy) >= until)!
    const steps = await train('--workers', '2', '--epochs', '5', '--steps', String(step)).done()
    const args = ['--epochs', '5', '--name', 'until', '--until', String(until)]
    const done = await train('--workers', '1', ...args).done()
    expect(done).toMatchObject({ step, epoch, finished: true, testAccuracy: until })
    expect(done['until']).toMatchObject({
      accuracy: until,
      reached: true,
      epochs: epoch,
      samples: Number(epoch) * 450,
    })
    expect(done['parametersSha256']).toBe(steps['parametersSha256'])
    // Started again, it has nothing to do; without --until it goes on.
    expect(await train('--workers', '1', ...args).done()).toMatchObject({ step, testAccuracy: until })
    const on = await train('--workers', '2', ...args.slice(0, -2)).done()
    expect(on['parametersSha256']).toBe(whole.event('done')!['parametersSha256'])
  })

  it('refuses to go on with a run under other settings', async () => {
    const run = train('--name', 'reference', '--learning-rate', '0.5')
    expect(await run.ended).toBe(1)
    expect(run.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_RUN' })
    expect(run.text).toMatch(/learningRate is 0\.01 there and 0\.5 now/)
  })

  it.each([
    ['bf16 on the wire', ['--wire', 'bf16', '--wire-leaves', '4']],
    ['one batch an epoch', ['--batch-size', 'full']],
    ['the wasm engine', ['--engine', 'tfjs-wasm', '--epochs', '1']],
    [
      'clipping, weight decay and one-cycle',
      ['--clip-norm', '0.5', '--weight-decay', '0.001', '--schedule', 'oneCycle'],
    ],
  ])('gives the same bits for any number of workers with %s', async (_, options) => {
    const one = await train('--workers', '1', ...options).done()
    const three = await train('--workers', '3', ...options).done()
    expect(three['parametersSha256']).toBe(one['parametersSha256'])
    expect(one['parametersSha256']).not.toBe(expected['parametersSha256'])
  })

  it('gives the same bits with eight bits up and bf16 down, stopped and resumed, and where a worker is killed', async () => {
    const options = ['--wire', 'int8', '--wire-leaves', '2', '--down', 'bf16']
    const one = await train('--workers', '1', ...options).done()
    expect(one['parametersSha256']).not.toBe(expected['parametersSha256'])
    await train('--workers', '2', '--name', 'short', ...options, '--steps', '4').done()
    const run = train('--workers', '3', '--name', 'short', ...options)
    await run.until(() => run.event('step'))
    process.kill((await childrenOf(run.child.pid!))[0], 'SIGKILL')
    expect((await run.done())['parametersSha256']).toBe(one['parametersSha256'])
  })

  it('is evaluated to the accuracy that it ended with', async () => {
    const run = new Convoy(['evaluate', '--runs', folder, '--run', 'reference', '--json'])
    expect(await run.ended).toBe(0)
    expect(run.lines.at(-1)).toMatchObject({
      event: 'evaluation',
      images: 70,
      accuracy: expected['testAccuracy'],
    })
  })
})

const images = process.env['CONVOY_DATA']
describe.skipIf(!images)('on real images (skipped: CONVOY_DATA is not set)', () => {
  it('gives the same bits with one and three workers', async () => {
    const real = [
      '--data',
      images!,
      '--limit-train',
      '256',
      '--limit-test',
      '64',
      '--epochs',
      '1',
      '--width',
      '0.25',
    ]
    const run = (workers: string) =>
      new Convoy(['train', ...real, '--workers', workers, '--runs', folder, '--port', '0', '--json']).done()
    expect((await run('3'))['parametersSha256']).toBe((await run('1'))['parametersSha256'])
  })
})

describe('convoy coordinator', () => {
  const token = 'a-secret-token'
  let coordinator: Convoy
  let url: string
  beforeAll(async () => {
    coordinator = new Convoy(['coordinator', ...small, '--name', 'guarded', '--token', token])
    url = await coordinator.address()
  })
  afterAll(async () => {
    coordinator.child.kill('SIGTERM')
    await coordinator.ended
  })

  /** Says something first on a new connection and gives the coordinator's answer. */
  const answerTo = (bytes: Uint8Array | string) =>
    new Promise<{ kind?: string; code?: string }>((resolve, reject) => {
      const socket = new WebSocket(url, { headers: { authorization: `Bearer ${token}` } })
      socket.on('open', () => socket.send(bytes))
      socket.on('message', (data) =>
        resolve(decodeFrame(data as Buffer).header as { kind: string; code: string }),
      )
      socket.on('error', reject)
    })

  it.each([
    ['a wrong one', ['--token', 'not-the-token']],
    ['none', []],
  ])('refuses a worker with %s for a token', async (_, args) => {
    const worker = new Convoy(['worker', '--coordinator', url, ...args])
    expect(await worker.ended).toBe(1)
    expect(worker.text).toMatch(/E_TOKEN: .*\n.*--token/)
  })

  it('refuses another version of the protocol in words', async () => {
    const answer = await answerTo(
      encodeFrame({ kind: 'hello', version: PROTOCOL_VERSION + 1, name: 'newer' }),
    )
    expect(answer).toMatchObject({ kind: 'goodbye', code: 'E_PROTOCOL_VERSION' })
  })

  it('refuses random bytes, text, and anything before hello', async () => {
    expect(await answerTo(new Uint8Array(500).fill(0xc1))).toMatchObject({
      kind: 'goodbye',
      code: 'E_FRAME',
    })
    expect(await answerTo('hello')).toMatchObject({ kind: 'goodbye', code: 'E_MESSAGE' })
    expect(await answerTo(encodeFrame({ kind: 'ready' }))).toMatchObject({
      kind: 'goodbye',
      code: 'E_MESSAGE',
    })
  })

  it('names a taken port', async () => {
    const port = new URL(url).port
    const second = new Convoy(['coordinator', ...small, '--port', port])
    expect(await second.ended).toBe(1)
    expect(second.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_PORT_IN_USE' })
  })

  it('does not listen beyond loopback without a token', async () => {
    const open = new Convoy(['coordinator', ...small, '--host', '0.0.0.0'])
    expect(await open.ended).toBe(1)
    expect(open.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_TOKEN_REQUIRED' })
  })

  it('trains with workers that come by themselves, one of which leaves on SIGTERM', async () => {
    const start = (name: string) =>
      new Convoy(['worker', '--coordinator', url, '--token', token, '--worker-name', name])
    const [one, two] = [start('one'), start('two')]
    await coordinator.until((run) =>
      run.lines.some(({ event, step }) => event === 'step' && Number(step) >= 3),
    )
    one.child.kill('SIGTERM')
    expect(await one.ended).toBe(0)
    const done = await coordinator.until((run) => run.event('done'))
    expect(await two.ended).toBe(0)
    const alone = await train('--workers', '1').done()
    expect(done['parametersSha256']).toBe(alone['parametersSha256'])
  })
})

describe('scaling', () => {
  it('from 1 to 8 workers and down to 2 during a run changes nothing', async () => {
    const args = ['--epochs', '1000', '--evaluate-every', '0']
    const coordinator = new Convoy(['coordinator', ...small, ...args])
    const url = await coordinator.address()
    const start = () => new Convoy(['worker', '--coordinator', url])
    const stepsWith = (workers: number) =>
      coordinator.until(({ lines }) =>
        lines.some((line) => line.event === 'step' && line['workers'] === workers),
      )
    const all = [start()]
    await stepsWith(1)
    while (all.length < 8) all.push(start())
    await stepsWith(8)
    for (const worker of all.slice(2)) worker.child.kill('SIGTERM')
    expect(await Promise.all(all.slice(2).map(({ ended }) => ended))).toEqual(Array(6).fill(0))
    await stepsWith(2)
    coordinator.child.kill('SIGTERM')
    const done = await coordinator.done()
    // Workers look for a coordinator that comes back.
    for (const worker of all.slice(0, 2)) worker.child.kill('SIGTERM')
    const alone = await train('--workers', '1', ...args, '--steps', String(done['step'])).done()
    expect(done['parametersSha256']).toBe(alone['parametersSha256'])
  })
})

describe('workers of another arithmetic', () => {
  const start = (url: string, engine: string) =>
    new Convoy(['worker', '--coordinator', url, '--engine', engine, '--worker-name', engine])
  const coordinate = async (...args: string[]) => {
    const run = new Convoy(['coordinator', ...small, '--epochs', '1000', '--evaluate-every', '0', ...args])
    const url = await run.address()
    const first = start(url, 'tfjs-wasm')
    await run.until(() => run.event('step'))
    return { run, first, second: start(url, 'tfjs-cpu') }
  }

  it('are refused with --reproducible', async () => {
    const { run, first, second } = await coordinate('--reproducible')
    expect(await second.ended).toBe(1)
    expect(second.text).toMatch(/E_NUMERICS: this run computes with/)
    run.child.kill('SIGTERM')
    expect(await run.done()).toMatchObject({ mixed: false, numerics: { engine: 'tfjs-wasm' } })
    first.child.kill('SIGTERM')
  })

  it('are let in otherwise, and the result says so', async () => {
    const { run, first, second } = await coordinate()
    await run.until(() => run.lines.some((line) => line.event === 'step' && line['workers'] === 2))
    expect(run.event('mixed')).toMatchObject({ worker: 'tfjs-cpu' })
    run.child.kill('SIGTERM')
    expect(await run.done()).toMatchObject({ mixed: true })
    for (const worker of [first, second]) worker.child.kill('SIGTERM')
  })
})

describe('guards', () => {
  it('finds a worker that lies, and ends with the honest weights', async () => {
    // However long it takes: which gradients are verified is drawn.
    const args = [...small, '--epochs', '1000', '--evaluate-every', '0']
    const run = new Convoy(['coordinator', ...args, '--verify', '0.25', '--ledger', '--name', 'verified'])
    const url = await run.address()
    const liar = await liarBefore(url)
    const start = (name: string, at: string) =>
      new Convoy(['worker', '--coordinator', at, '--worker-name', name])
    const [honest, dishonest, third] = [start('a', url), start('b', liar.url), start('c', url)]
    const back = await run.until(() => run.event('rolledBack'))
    expect(run.event('dishonest')).toMatchObject({ worker: 'b' })
    expect(liar.lies()).toBeGreaterThan(0)
    expect(await dishonest.ended).toBe(1)
    expect(dishonest.text).toMatch(/E_DISHONEST/)
    // Beyond where the lie was found, with those who are left.
    const further = Number(back['from']) + 10
    await run.until(() => run.lines.some(({ event, step }) => event === 'step' && Number(step) >= further))
    run.child.kill('SIGTERM')
    const done = await run.done()
    for (const worker of [honest, third]) worker.child.kill('SIGTERM')
    expect([await honest.ended, await third.ended]).toEqual([0, 0])
    liar.close()
    const steps = Number(done['step'])
    const alone = await new Convoy(['train', ...args, '--workers', '1', '--steps', String(steps)]).done()
    expect(done['parametersSha256']).toBe(alone['parametersSha256'])
    checkLedger(path.join(folder, 'verified', 'ledger.jsonl'), { steps, epochSteps: 5 })
  })

  const wild = ['--learning-rate', '1000', '--workers', '2']

  it('stops a run that diverges, in words', async () => {
    const run = train(...wild)
    expect(await run.ended).toBe(1)
    expect(run.event('diverged')).toBeDefined()
    expect(run.event('verdict')).toMatchObject({ verdict: 'diverging' })
    expect(run.event('setAside')).toBeUndefined()
    expect(run.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_DIVERGED' })
  })

  it('or takes it back at half the rate, the same way each time', async () => {
    const story = (run: Convoy) =>
      run.lines
        .filter(({ event }) => event === 'rolledBack')
        .map(({ from, to, rateFactor }) => [from, to, rateFactor])
    const isForward = ([, to]: unknown[]) => Number(to) > 0
    let options: string[] = []
    let first: Convoy
    // From which rate on it diverges in the first epoch depends on the engine's bits: one is wanted that goes back to a later one.
    for (const rate of ['20', '10', '5', '2.5']) {
      options = ['--schedule', 'oneCycle', '--learning-rate', rate, '--epochs', '8', '--evaluate-every', '0']
      options.push('--on-divergence', 'rollback')
      first = train(...options, '--workers', '1')
      await first.ended
      if (story(first).some(isForward)) break
    }
    // The third has no checkpoint to go back to, and repeats more.
    const disk = faultyDisk(folder, 'none')
    const unsaved = new Convoy(['train', ...small, ...options, '--workers', '1'], disk.environment)
    const runs = [first!, train(...options, '--workers', '3'), unsaved]
    await unsaved.until((run) => run.event('listening'))
    disk.set({ mode: 'full' })
    const ended = await Promise.all(runs.map((run) => run.ended))
    expect(runs[0].event('rolledBack')).toBeDefined()
    expect(ended[0]).toBe(ended[1])
    expect(story(runs[1])).toEqual(story(runs[0]))
    for (const run of runs.slice(1))
      expect(run.event('done')?.['parametersSha256']).toBe(runs[0].event('done')?.['parametersSha256'])
    expect(unsaved.event('checkpointFailed')).toBeDefined()

    // And a fourth is killed while it goes back: what it goes back to is written so slowly that it never is.
    const name = ['--name', 'killed-going-back', '--checkpoint-every', '3600']
    const slow = faultyDisk(folder, 'going-back')
    const at = story(runs[0]).findIndex(isForward)
    const again = `step-${story(runs[0])[at][1] as number}.convoy`
    slow.set({ mode: 'slow', milliseconds: 600_000, files: '.tmp', again })
    const killed = new Convoy(['train', ...small, ...options, '--workers', '1', ...name], slow.environment)
    const count = (event: string) => killed.lines.filter((line) => line.event === event).length
    await killed.until(() => count('diverged') > at)
    const checkpoints = path.join(folder, 'killed-going-back', 'checkpoints')
    const half = (file: string) => file.startsWith(again) && file.endsWith('.tmp')
    while (!readdirSync(checkpoints).some(half)) {
      expect(killed.child.exitCode).toBe(null)
      await sleep(20)
    }
    killed.child.kill('SIGKILL')
    await killed.ended
    expect(count('rolledBack')).toBe(at)
    const repeated = train(...options, '--workers', '1', ...name)
    expect(await repeated.ended).toBe(ended[0])
    expect(repeated.event('done')?.['parametersSha256']).toBe(runs[0].event('done')?.['parametersSha256'])
    // A dozen processes, one after another in part.
  }, 300_000)
})
