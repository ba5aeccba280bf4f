import { Arena } from '@convoy/arena'
import { epochOrder, LeafImages, loadDataset, prepare } from '@convoy/data'
import { Masks } from '@convoy/engine'
import { createEngine } from '@convoy/engines'
import { buildModel, initialise, parameterLayout } from '@convoy/model'
import { NesterovSgd } from '@convoy/optim'
import { NodeSummer } from '@convoy/reduction'
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { childrenOf, Convoy, scratch, type Line } from './convoy.ts'
import { engines } from './engines.ts'
import { runWithLiar } from './liar.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** Three rounds an epoch with K = H = 8, of 256 samples; the last has three replicas, the third of which has 24 of 32 samples. */
const IMAGES = 600
const small = [
  ...['--data', 'synthetic', '--limit-train', String(IMAGES), '--limit-test', '50', '--width', '0.125'],
  ...['--image-size', '8', '--batch-size', '4', '--micro-batch', '3', '--evaluate-every', '0'],
  ...['--runs', folder, '--port', '0', '--json'],
]
const eight = ['--replicas', '8', '--local-steps', '8', '--epochs', '2']
/** Rounds of 192 samples, four an epoch, of which the first ones have smaller images. */
const other = [
  ...['--replicas', '3', '--local-steps', '4', '--batch-size', '16', '--epochs', '2', '--image-size', '16'],
  ...['--sizes', '8:0.4,16', '--optimizer', 'muon', '--whitened-start', '--schedule', 'oneCycle'],
  ...['--learning-rate', '0.03', '--flip', '--shift', '1', '--wire', 'int8', '--outer-rate', '0.9'],
  ...['--outer-momentum', '0.5', '--down', 'bf16'],
]

const start = (options: readonly string[], workers: number, ...args: string[]) =>
  new Convoy(['train', ...small, ...options, '--workers', String(workers), ...args])
const sumOf = ({ parametersSha256 }: Line) => parametersSha256
const stepsOf = ({ lines }: Convoy) => lines.filter(({ event }) => event === 'step')
const untilStep = (run: Convoy, wanted: number) =>
  run.until(() => stepsOf(run).some(({ step }) => Number(step) >= wanted))

/** Whether an engine runs here. */
const open = (engine: 'onednn' | 'tfjs-wasm') =>
  createEngine({ engine, precision: 'float32', threads: 1, device: 0, gpu: false })
// Where other work goes on beside them, processes take long to start.
vi.setConfig({ testTimeout: 400_000, hookTimeout: 400_000 })

describe.each(engines)('rounds on $engine', ({ engine, there }) => {
  describe.skipIf(!there)(there ? 'it' : 'it (skipped: the engine is not here)', () => {
    const pairs = [
      { name: 'K = 8, H = 8', options: [...eight, '--engine', engine], rounds: 6 },
      {
        name: 'K = 3, H = 4, with Muon, sizes, int8 up and bf16 down',
        options: [...other, '--engine', engine],
        rounds: 8,
      },
    ]

    describe.each(pairs)('of $name', ({ name, options, rounds }) => {
      let expected: Line
      beforeAll(async () => {
        const one = start(options, 1)
        expected = await one.done()
        expect(stepsOf(one)).toHaveLength(rounds)
        expect(stepsOf(one).reduce((sum, { samples }) => sum + Number(samples), 0)).toBe(2 * IMAGES)
      })

      it('have the same bits where workers are killed or stand still, and where the coordinator is killed', async () => {
        const run = start([...options, '--name', `${engine}-${name.length}`], 3)
        await untilStep(run, 1)
        const [first, second] = await childrenOf(run.child.pid!)
        process.kill(first, 'SIGKILL')
        process.kill(second, 'SIGSTOP')
        // Within the first round of the second epoch.
        await run.until(() =>
          run.lines.some(({ event, step }) => event === 'checkpoint' && Number(step) >= rounds / 2),
        )
        run.child.kill('SIGKILL')
        await run.ended
        process.kill(second, 'SIGKILL')
        const resumed = start([...options, '--name', `${engine}-${name.length}`], 2)
        expect(sumOf(await resumed.done())).toBe(sumOf(expected))
        expect(Number(resumed.event('start')!['resumedAt'])).toBeGreaterThanOrEqual(rounds / 2)
      })

      it('have the same bits with eight workers', async () => {
        expect(sumOf(await start(options, 8).done())).toBe(sumOf(expected))
      })
    })
  })
})

/**
 * What rounds are, in plain loops on the parts of the house: every replica takes its steps from the same parameters, with momentum from
 * zero; then Nesterov's SGD by the mean of their differences. Without `outer`, one replica goes on from where its steps ended.
 */
async function reference(
  model: ReturnType<typeof buildModel>,
  {
    replicas,
    steps,
    batch,
    epochs,
    outer,
  }: Record<'replicas' | 'steps' | 'batch' | 'epochs', number> & {
    outer?: readonly [rate: number, momentum: number]
  },
): Promise<Float32Array> {
  const raw = await loadDataset('synthetic', { limitTrain: IMAGES, limitTest: 50, size: 8 })
  const { dataset, preprocessing } = await prepare(raw, 'channels', {})
  const engine = await open('tfjs-wasm')
  const compiled = await engine.compile(model, 3)
  const leaf = new LeafImages(dataset.shape, preprocessing, { flip: true, shift: 0 }, 3)
  const masks = new Masks(model, 3)
  const { size } = parameterLayout(model)
  const arena = new Arena(size)
  const gradients = new NodeSummer(size, arena)
  const differences = new NodeSummer(size, arena)
  const given = initialise(model, 'heUniform', 1)
  const none = new Float32Array(size)
  const sgd = (momentum: number) =>
    new NesterovSgd(arena, given, none, {
      momentum,
      nesterov: true,
      weightDecay: 0,
      clipNorm: 0,
      decayed: [],
    })
  const local = sgd(0.9)
  const central = sgd(outer?.[1] ?? 0)
  /** The sum over a batch, on the replica's parameters; `number` is that of the batch in the run. */
  const gradient = async (ids: Uint32Array, epoch: number, number: number) => {
    compiled.load(local.parameters)
    gradients.begin(0, Math.ceil(ids.length / 3))
    for (let from = 0; from < ids.length; from += 3) {
      leaf.clear()
      for (const sample of ids.subarray(from, from + 3)) {
        const pixels = dataset.train.pixels.subarray(192 * sample, 192 * (sample + 1))
        leaf.add(pixels, dataset.train.labels[sample], { seed: 1, epoch, sample })
      }
      masks.fill({ seed: 1, epoch, step: number, leaf: from / 3 }, leaf.count)
      const { loss, correct } = await compiled.gradient(leaf, masks, gradients.buffer())
      gradients.push(loss, correct, leaf.count)
    }
    return gradients.result()
  }
  let number = 0
  for (let epoch = 0; epoch < epochs; epoch++) {
    const order = epochOrder(1, epoch, IMAGES)
    for (let at = 0; at < IMAGES; at += replicas * steps * batch) {
      const round = order.subarray(at, at + replicas * steps * batch)
      differences.begin(0, Math.ceil(round.length / (steps * batch)))
      for (let from = 0; from < round.length; from += steps * batch) {
        const mine = round.subarray(from, from + steps * batch)
        const before = outer ? central.parameters.slice() : local.parameters.slice()
        local.restore(before, none)
        for (let first = 0; first < mine.length; first += batch) {
          const sum = await gradient(mine.subarray(first, first + batch), epoch, number++)
          local.update(sum.gradient, sum.count, 0.02)
        }
        const after = local.parameters.slice()
        differences.buffer().set(before.map((value, i) => mine.length * (value - after[i])))
        differences.push(0, 0, mine.length)
      }
      const { gradient: sum, count } = differences.result()
      if (outer) central.update(sum, count, outer[0])
    }
  }
  engine.dispose()
  return (outer ? central : local).parameters.slice()
}

describe.skipIf(!engines[1].there)('a round', () => {
  const model = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.125 })
  const sha256 = (values: Float32Array) => createHash('sha256').update(values).digest('hex')
  const options = [
    ...[
      '--engine',
      'tfjs-wasm',
      '--schedule',
      'constant',
      '--learning-rate',
      '0.02',
      '--flip',
      '--epochs',
      '1',
    ],
    ...['--batch-size', '8'],
  ]

  it.each([
    { replicas: 1, steps: 8, outer: [1, 0] },
    { replicas: 4, steps: 3, outer: [0.7, 0.9] },
  ] as const)('is what plain loops make of it (%j)', async ({ replicas, steps, outer }) => {
    const rounds = ['--replicas', String(replicas), '--local-steps', String(steps)]
    const how = ['--outer-rate', String(outer[0]), '--outer-momentum', String(outer[1])]
    const done = await start([...options, ...rounds, ...how], 2).done()
    expect(sumOf(done)).toBe(sha256(await reference(model, { replicas, steps, batch: 8, epochs: 1, outer })))
  })

  it('of one replica that is averaged ends where a plain run ends whose momentum starts from zero so often', async () => {
    const averaged = await reference(model, { replicas: 1, steps: 5, batch: 8, epochs: 1, outer: [1, 0] })
    const plain = await reference(model, { replicas: 1, steps: 5, batch: 8, epochs: 1 })
    expect(Math.max(...averaged.map((value, i) => Math.abs(value - plain[i])))).toBeLessThan(1e-6)
  })

  it('is none with --local-steps 1 alone', async () => {
    const one = ['--epochs', '1', '--limit-train', '64']
    expect(sumOf(await start([...options, ...one, '--local-steps', '1'], 1).done())).toBe(
      sumOf(await start([...options, ...one], 2).done()),
    )
  })
})

describe('a worker that lies about rounds', () => {
  it('is found by --verify 1, and the run ends with the honest sum', async () => {
    const options = ['--replicas', '8', '--local-steps', '4', '--batch-size', '8', '--epochs', '24']
    const done = await runWithLiar([...small, ...options])
    expect(sumOf(done)).toBe(sumOf(await start(options, 1).done()))
  })
})

describe('rounds that are not possible', () => {
  it.each([
    [['--replicas', '0'], /--replicas 0 is not possible/],
    [['--replicas', '2', '--local-steps', '0'], /--local-steps 0 is not possible/],
    [['--local-steps', '8'], /without --replicas there are no rounds/],
    [['--replicas', '40', '--local-steps', '4'], /= 640, more than the 600 of an epoch/],
  ])('are refused (%j)', async (options, message) => {
    const run = start(options, 1)
    expect(await run.ended).toBe(2)
    expect(run.text).toMatch(message)
    expect(run.text).toContain('E_USAGE')
  })
})
