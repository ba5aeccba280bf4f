import { buildModel, freeze, trainedRanges } from '@convoy/model'
import { readCheckpoint } from '@convoy/coordinator'
import { readdirSync, renameSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { childrenOf, Convoy, scratch, type Line } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const common = [
  ...['--data', 'synthetic', '--limit-train', '450', '--limit-test', '70', '--width', '0.125'],
  ...['--batch-size', '100', '--micro-batch', '8', '--runs', folder, '--port', '0', '--json'],
]
const init = path.join(folder, 'base', 'checkpoints', 'step-5.convoy')
const tune = (...args: string[]) =>
  new Convoy([
    ...['train', ...common, '--epochs', '2', '--flip', '--weight-decay', '0.01', '--clip-norm', '1'],
    ...['--init', init, ...args],
  ])

/** The parameters that a run of ten steps ended with. */
const parametersOf = async (run: string) =>
  (await readCheckpoint(path.join(folder, run, 'checkpoints', 'step-10.convoy'))).parameters

describe('convoy train --init --freeze', () => {
  beforeAll(async () => {
    await new Convoy(['train', ...common, '--epochs', '1', '--name', 'base', '--workers', '2']).done()
    expect(readdirSync(path.dirname(init))).toContain('step-5.convoy')
  })

  describe.each(['all-but-2', 'conv2,conv4'])('with %s frozen', (frozen) => {
    const name = frozen.replace(',', '-')
    let expected: Line
    beforeAll(async () => {
      expected = await tune('--freeze', frozen, '--workers', '2', '--name', name).done()
    })

    it('trains only the other layers', async () => {
      const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.125 })
      const before = (await readCheckpoint(init)).parameters
      const after = await parametersOf(name)
      const ranges = trainedRanges(freeze(model, frozen))
      const trained = (i: number) =>
        ranges.some(({ parameter, size }) => i >= parameter && i < parameter + size)
      const moved = before.reduce((sum, value, i) => sum + (value !== after[i] && !trained(i) ? 1 : 0), 0)
      expect(moved).toBe(0)
      for (const { parameter, size } of ranges) {
        const part = (all: Float32Array) => all.subarray(parameter, parameter + size)
        expect(
          Buffer.compare(Buffer.from(part(before).slice().buffer), Buffer.from(part(after).slice().buffer)),
        ).not.toBe(0)
      }
    })

    it.each(['1', '3'])('gives the same bits with %s workers', async (workers) => {
      const done = await tune('--freeze', frozen, '--workers', workers).done()
      expect(done['parametersSha256']).toBe(expected['parametersSha256'])
    })
  })

  it('sends less than a tenth of the gradient bytes with all-but-2 frozen', async () => {
    const received = async (...args: string[]) => {
      const run = ['coordinator', ...common, '--init', init, '--steps', '8', '--stay', ...args]
      const coordinator = new Convoy(run)
      const worker = new Convoy(['worker', '--coordinator', await coordinator.address()])
      await coordinator.until(() => coordinator.event('done'))
      const dashboard = await coordinator.address('dashboard')
      const page = await (await fetch(new URL('/metrics', dashboard))).text()
      for (const convoy of [worker, coordinator]) convoy.child.kill('SIGKILL')
      await Promise.all([worker.ended, coordinator.ended])
      return Number(/^convoy_wire_bytes_total\{direction="received"\} (\d+)$/m.exec(page)![1])
    }
    const all = await received('--name', 'bytes', '--evaluate-every', '0')
    const frozen = await received('--name', 'frozen-bytes', '--evaluate-every', '0', '--freeze', 'all-but-2')
    // Eight steps, in each at least one sum of gradients of 22,042 numbers.
    expect(all).toBeGreaterThan(8 * 4 * 22_042)
    expect(frozen).toBeLessThan(all / 10)
  })

  describe('with all-but-2 frozen, under faults', () => {
    const frozen = 'all-but-2'
    let expected: Line
    beforeAll(async () => {
      expected = await tune('--freeze', frozen, '--workers', '1').done()
    })

    it('gives the same bits when a worker is killed', async () => {
      const run = tune('--freeze', frozen, '--workers', '3')
      await run.until(() => run.lines.some(({ event, step }) => event === 'step' && Number(step) >= 2))
      const [victim] = await childrenOf(run.child.pid!)
      process.kill(victim, 'SIGKILL')
      const done = await run.done()
      expect(done['parametersSha256']).toBe(expected['parametersSha256'])
    })

    it('goes on to the same bits, also where the file of weights is gone', async () => {
      const stopped = 'stopped'
      await tune('--freeze', frozen, '--workers', '1', '--name', stopped, '--steps', '4').done()
      renameSync(init, `${init}.gone`)
      try {
        const done = await new Convoy([
          ...['train', '--name', stopped, '--runs', folder, '--port', '0', '--json', '--workers', '1'],
        ]).done()
        expect(done['parametersSha256']).toBe(expected['parametersSha256'])
      } finally {
        renameSync(`${init}.gone`, init)
      }
    })
  })

  it('refuses to go on with a run from other weights', async () => {
    await tune('--name', 'identity', '--steps', '1', '--workers', '1').done()
    const other = path.join(folder, 'all-but-2', 'checkpoints', 'step-10.convoy')
    const run = tune('--name', 'identity', '--init', other)
    expect(await run.ended).toBe(1)
    expect(run.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_RUN' })
    expect(run.text).toMatch(/init is .*[0-9a-f]{64}.* there and .*[0-9a-f]{64}.* now/)
  })

  it('tells weights of another network, and a layer that is not there', async () => {
    const other = tune('--model', 'all-cnn-a', '--workers', '1', '--name', 'refused')
    expect(await other.ended).toBe(1)
    expect(other.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_WEIGHTS_FIT' })
    const strange = tune('--freeze', 'conv77')
    expect(await strange.ended).toBe(1)
    expect(strange.lines.at(-1)).toMatchObject({ event: 'error', code: 'E_MODEL' })
    expect(readdirSync(folder)).not.toContain('refused')
  })
})
