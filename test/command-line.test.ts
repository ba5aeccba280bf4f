import { mkdirSync, readdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** Expects E_USAGE of `convoy train` on 100 images, without a stack, and no run. */
async function refused(args: readonly string[], message: RegExp): Promise<void> {
  const run = new Convoy([
    ...['train', '--data', 'synthetic', '--limit-train', '100', '--limit-test', '20', '--width', '0.125'],
    ...['--workers', '0', '--runs', folder, '--port', '0', ...args],
  ])
  expect(await run.ended).toBe(2)
  expect(run.text).toMatch(message)
  expect(run.text.match(/E_[A-Z_]+/g)).toEqual(['E_USAGE'])
  expect(run.text).not.toMatch(/\n\s+at /)
  expect(readdirSync(folder)).toEqual([])
}

describe('the command line', () => {
  it.each([
    [['train', '--learning-rate', '-1'], /E_USAGE: --learning-rate -1/, 2],
    [['train', '--until', '85'], /E_USAGE: --until 85 .*percentage/, 2],
    [['train', '--model', 'resnet'], /E_USAGE: --model resnet/, 2],
    [['train', '--recipe', 'cake'], /E_USAGE: no recipe is called cake/, 2],
    [['train', '--no-such-flag'], /unknown option/, 2],
    [['train', '--optimizer', 'adam'], /E_USAGE: --optimizer adam .*sgd/, 2],
    [['train', '--parametrisation', 'weightNorm'], /E_USAGE: --parametrisation weightNorm/, 2],
    [['train', '--resize', 'squeeze'], /E_USAGE: --resize squeeze .*shrink/, 2],
    [['train', '--label-smoothing', '1'], /E_USAGE: --label-smoothing 1 .*nothing is left/, 2],
    [['train', '--end-rate', '1.5'], /E_USAGE: --end-rate 1.5/, 2],
    [['train', '--bias-rate', '-1'], /E_USAGE: --bias-rate -1/, 2],
    [['train', '--hold-out', '0'], /E_USAGE: --hold-out 0/, 2],
    [['train', '--cutout', '2.5'], /E_USAGE: --cutout 2.5/, 2],
    [['bench', 'cluster', '--rounds', 'x'], /E_USAGE: --rounds x/, 2],
    [['train', '--data', '/no/such/place'], /E_DATA_NOT_FOUND/, 1],
    [['evaluate', '--runs', '/no/such/place'], /E_RUN: there is no run/, 1],
    // Below /proc no folder can be made, and Node.js 20 does not come back from trying to with those above it.
    [
      ['coordinator', '--data', 'synthetic', '--limit-train', '10', '--runs', '/proc/convoy/runs'],
      /E_RUN: cannot make the folder .proc/,
      1,
    ],
    [['worker', '--coordinator', 'ws://127.0.0.1:9', '--give-up-after', '1'], /E_UNREACHABLE/, 1],
    [['worker', '--coordinator', 'nonsense'], /E_USAGE: nonsense is not the address/, 2],
  ] as const)('%j is refused in one clear error', async (args, message, code) => {
    const run = new Convoy([...args])
    expect(await run.ended).toBe(code)
    expect(run.text).toMatch(message)
    expect(run.text).not.toMatch(/\n\s+at /)
  })

  it('says once what none of the workers of a training can do', async () => {
    const run = new Convoy(
      [
        ...['train', '--data', 'synthetic', '--limit-train', '100', '--limit-test', '20', '--width', '0.125'],
        ...['--engine', 'onednn', '--workers', '3', '--runs', path.join(folder, 'none'), '--port', '0'],
      ],
      { CONVOY_ONEDNN: '/no/such/library.so' },
    )
    expect(await run.ended).toBe(1)
    expect(run.text.match(/E_[A-Z_]+/g)).toEqual(['E_ENGINE'])
    rmSync(path.join(folder, 'none'), { recursive: true, force: true })
  })

  it.each([[['--image-size', '16']], [['--preprocessing', 'zca', '--image-size', '8']], [['--flip']]])(
    'a first run takes %j without complaining of settings of the demo',
    async (args) => {
      const run = new Convoy(
        [
          ...['train', '--limit-train', '32', '--limit-test', '8', '--width', '0.125', '--steps', '1'],
          ...['--workers', '1', '--runs', path.join(folder, 'first'), '--port', '0', ...args],
        ],
        { CONVOY_CACHE: path.join(folder, 'cache'), CONVOY_OFFLINE: '1' },
      )
      expect([await run.ended, run.text]).toEqual([0, expect.stringContaining('synthetic images')])
      expect(run.text).not.toContain('demo')
      for (const made of ['first', 'cache']) rmSync(path.join(folder, made), { recursive: true, force: true })
    },
  )

  it.each([
    ['18:0.4,32', /18 is no multiple of 4/],
    ['4:0.4,32', /4 is no multiple of 4 from 8 on/],
    ['40:0.4,32', /40 is larger than the images, which are 32×32/],
    ['16:0.4,24', /the last size must be 32/],
    ['16:0.4,32:0.6', /the last size has a share/],
    ['16,32', /16 has no share/],
    ['16:1.4,32', /1.4 is no share between 0 and 1/],
    ['16:0.6,24:0.4,32', /leave nothing to the last size/],
    ['16:0.6,24:0.7,32', /leave nothing to the last size/],
    ['small', /“small” is no size/],
  ])('--sizes %s is refused in one clear error', async (sizes, message) => {
    await refused(['--sizes', sizes], message)
  })

  it.each([
    [['--sizes', '16:0.5,32', '--preprocessing', 'zca'], /--sizes 16:0.5,32 .*ZCA/],
    [['--head-rate', '0.4'], /--head-rate 0.4 does not go with --optimizer sgd/],
    [
      ['--optimizer', 'muon', '--weight-decay', '0.1'],
      /--weight-decay 0.1 does not go with --optimizer muon/,
    ],
    [['--optimizer', 'muon', '--no-nesterov'], /--no-nesterov does not go with --optimizer muon/],
    [
      ['--optimizer', 'muon', '--parametrisation', 'standardised'],
      /--parametrisation standardised does not go with --optimizer muon/,
    ],
    [['--cutout', '33'], /--cutout 33 is larger than the images, which are 32×32/],
    [['--resize', 'crop'], /--resize crop is for --sizes/],
    [['--flip', '--alternating-flip'], /--flip and --alternating-flip exclude one another/],
  ])('%j is refused in one clear error', async (args, message) => {
    await refused(args, message)
  })

  it('--hold-out of more images than there are to spare is refused in one clear error', async () => {
    const images = scratch()
    for (const name of ['train/a', 'train/b', 'test/a', 'test/b']) {
      mkdirSync(path.join(images.folder, name), { recursive: true })
      for (const file of ['0.png', '1.png']) {
        const create = {
          width: 8,
          height: 8,
          channels: 3 as const,
          background: file === '0.png' ? 'red' : 'blue',
        }
        await sharp({ create }).toFile(path.join(images.folder, name, file))
      }
    }
    await refused(
      ['--data', images.folder, '--hold-out', '3', '--cache', path.join(images.folder, 'cache')],
      /--hold-out 3 leaves a class without images/,
    )
    images.remove()
  })

  it('takes an option from the environment, and a flag over it', async () => {
    const run = new Convoy(['train', '--seed', '-3'], { CONVOY_SEED: '5' })
    expect(await run.ended).toBe(2)
    expect(run.text).toMatch(/--seed -3/)
    const other = new Convoy(['train'], { CONVOY_SEED: 'x' })
    expect(await other.ended).toBe(2)
    expect(other.text).toMatch(/--seed x/)
  })

  it('doctor names what it would use', async () => {
    const run = new Convoy(['doctor', '--json'])
    expect(await run.ended).toBe(0)
    expect(run.lines.find(({ name }) => name === 'auto takes')).toMatchObject({ ok: true })
  })
})
