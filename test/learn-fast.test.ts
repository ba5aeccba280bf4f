import { readCheckpoint } from '@convoy/coordinator'
import type { Network } from '@convoy/weights'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { childrenOf, Convoy, root, scratch, type Line } from './convoy.ts'
import { engines } from './engines.ts'
import { runWithLiar } from './liar.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** Real images where there are some. A smaller last batch and a smaller last leaf at every size. */
const small = [
  ...['--data', process.env['CONVOY_DATA'] || 'synthetic', '--limit-train', '410', '--limit-test', '50'],
  ...['--width', '0.125', '--batch-size', '64', '--micro-batch', '8', '--epochs', '4'],
  ...['--runs', folder, '--port', '0', '--json'],
]
/** Everything that the recipe `fast` turns on; with 28 updates, 12 at 16×16, 8 at 24×24 and 8 at full size. */
const fast = [
  ...['--schedule', 'oneCycle', '--warmup', '0', '--learning-rate', '0.03', '--initialisation', 'heNormal'],
  ...['--optimizer', 'muon', '--head-rate', '0.4', '--bias-rate', '0.3', '--identity-start'],
  ...['--whitened-start', '--label-smoothing', '0.1', '--alternating-flip', '--shift', '2', '--dropout', '0'],
  ...['--sizes', '16:0.4,24:0.3,32'],
]
const standardised = [
  ...['--schedule', 'oneCycle', '--learning-rate', '0.02', '--parametrisation', 'standardised'],
  ...[
    '--end-rate',
    '0.1',
    '--bias-rate',
    '2',
    '--cutout',
    '8',
    '--sizes',
    '16:0.4,24:0.3,32',
    '--resize',
    'crop',
  ],
]

const start = (options: readonly string[], workers: number, ...args: string[]) =>
  new Convoy(['train', ...small, ...options, '--workers', String(workers), ...args])
const sumOf = ({ parametersSha256 }: Line) => parametersSha256
const stepsOf = ({ lines }: Convoy) => lines.filter(({ event }) => event === 'step')
const untilStep = (run: Convoy, wanted: number) =>
  run.until(() => stepsOf(run).some(({ step }) => Number(step) >= wanted))

/**
 * A run of three workers that loses one after `first` updates and its coordinator after `second`, and goes on with two from the
 * end of the epoch before.
 */
async function troubled(
  options: readonly string[],
  name: string,
  [first, second]: readonly [first: number, second: number],
): Promise<{ done: Line; resumed: Convoy }> {
  const run = start(options, 3, '--name', name)
  await untilStep(run, first)
  process.kill((await childrenOf(run.child.pid!))[0], 'SIGKILL')
  await untilStep(run, second)
  run.child.kill('SIGKILL')
  await run.ended
  const resumed = start(options, 2, '--name', name)
  return { done: await resumed.done(), resumed }
}

const images = small.slice(0, 6)
/** The last line of a command that ends well. */
async function last(...args: string[]): Promise<Line> {
  const run = new Convoy([...args, '--json'])
  expect(await run.ended, run.text).toBe(0)
  return run.lines.at(-1)!
}

describe.each(engines)('with all that learns fast, on $engine', ({ engine, there }) => {
  describe.skipIf(!there)(there ? 'it' : 'it (skipped: the engine is not here)', () => {
    const options = [...fast, '--engine', engine]
    let expected: Convoy
    let done: Line
    beforeAll(async () => {
      expected = start(options, 1, '--name', `${engine}-one`)
      done = await expected.done()
    })

    it('trains at each size for its share, and counts what that costs', () => {
      const sizes = stepsOf(expected).map(({ size }) => size)
      const times = (count: number, size?: number) => Array.from({ length: count }, () => size)
      expect(sizes).toEqual([...times(12, 16), ...times(8, 24), ...times(8)])
      expect(done['work']).toBeCloseTo((12 / 4 + (8 * 9) / 16 + 8) / 7, 12)
      expect(Number(stepsOf(expected).at(-1)!['loss'])).toBeLessThan(Number(stepsOf(expected)[0]['loss']))
    })

    it('gives the same bits with three workers, one of which is killed, and a coordinator that is killed and resumed', async () => {
      // From 16×16 on, or from 24×24 where the last checkpoint is that of step 14.
      const { done: other, resumed } = await troubled(options, `${engine}-troubled`, [5, 12])
      expect(Number(resumed.event('start')!['resumedAt'])).toBeGreaterThanOrEqual(7)
      expect(new Set(stepsOf(resumed).map(({ size }) => size)).size).toBeGreaterThan(1)
      expect(other['testAccuracy']).toBe(done['testAccuracy'])
      expect(sumOf(other)).toBe(sumOf(done))
    }, 300_000)

    it('gives the same bits with two workers', async () => {
      expect(sumOf(await start(options, 2).done())).toBe(sumOf(done))
    })
  })
})

describe('with standardised weights and crops', () => {
  // 14 updates: 6, 4 and 4 at each size.
  const options = [...standardised, '--epochs', '2']
  let expected: Line
  beforeAll(async () => {
    expected = await start(options, 1).done()
  })

  it('gives the same bits with three workers, one of which is killed, and a coordinator that is killed and resumed', async () => {
    const { done, resumed } = await troubled(options, 'standardised', [3, 8])
    expect(resumed.event('start')!['resumedAt']).toBe(7)
    expect(sumOf(done)).toBe(sumOf(expected))
  }, 300_000)

  it('learns otherwise than with plain ones', async () => {
    const plain = options.filter((option) => !['--parametrisation', 'standardised'].includes(option))
    expect(sumOf(await start(plain, 1).done())).not.toBe(sumOf(expected))
  })

  it('is evaluated to the accuracy that it ended with', async () => {
    const trained = await start(standardised, 2, '--name', 'evaluated', '--epochs', '1').done()
    const evaluation = new Convoy(['evaluate', '--runs', folder, '--run', 'evaluated', '--json'])
    expect(await evaluation.ended).toBe(0)
    const { logitsSha256, ...found } = evaluation.lines.at(-1)!
    expect(found).toMatchObject({ images: 50, accuracy: trained['testAccuracy'] })

    // What the kernels are made of is the optimizer's alone.
    const [checkpoint, exported] = [
      path.join(folder, 'evaluated/checkpoints/step-7.convoy'),
      path.join(folder, 'standardised.safetensors'),
    ]
    expect((await readCheckpoint(checkpoint)).variables).toBeDefined()
    await last('weights', 'export', '--checkpoint', checkpoint, '--out', exported)
    const other = await last('evaluate', ...images, '--workers', '1', '--weights', exported)
    expect(other['logitsSha256']).toBe(logitsSha256)
    const image = path.join(root, 'docs', 'dashboard.png')
    const predicted = (...source: string[]) => last('predict', image, '--top', '1', ...source)
    expect((await predicted('--checkpoint', checkpoint))['classes']).toEqual(
      (await predicted('--weights', exported))['classes'],
    )
  })
})

describe('a worker that lies about small images', () => {
  it('is found by --verify 1, and the run ends with the honest sum', async () => {
    const options = [...fast, '--epochs', '12', '--evaluate-every', '0']
    const done = await runWithLiar([...small, ...options])
    expect(sumOf(done)).toBe(sumOf(await start(options, 1).done()))
  }, 300_000)
})

describe('the weights of a run that learned fast', () => {
  it('are the same bits and logits in every format, and those of a plain network', async () => {
    const at = (name: string) => path.join(folder, name)
    await start(fast, 1, '--name', 'exported').done()
    const checkpoint = at('exported/checkpoints/step-28.convoy')
    const logits = async (...source: string[]) =>
      (await last('evaluate', ...images, '--workers', '1', ...source))['logitsSha256']
    const expected = await logits('--checkpoint', checkpoint)
    // Smoothed labels are the training's, and no part of a network.
    const { network } = await readCheckpoint(checkpoint)
    expect((network as Network).model).not.toHaveProperty('labelSmoothing')
    for (const name of ['a.safetensors', 'a.json', 'a.h5', 'a.weights.h5']) {
      const exported = await last('weights', 'export', '--checkpoint', checkpoint, '--out', at(name))
      expect(exported['model']).toBe('all-cnn-c×0.125')
      const imported = await last('weights', 'import', at(name), '--out', at('back.safetensors'))
      expect(imported['parametersSha256']).toBe(exported['parametersSha256'])
      if (name !== 'a.weights.h5') expect(await logits('--weights', at(name)), name).toBe(expected)
    }
    // A plain All-CNN-C takes them over.
    const plain = start([], 1, '--init', at('a.h5'), '--steps', '1', '--name', 'plain')
    await plain.done()
    expect(plain.event('initialised')).toBeDefined()
  })
})
