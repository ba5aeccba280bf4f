import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildSimulatedGpu, compilerFound, type SimulatedGpu } from '@convoy/engine-cudnn/simulated'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const small = [
  ...['--data', 'synthetic', '--limit-train', '300', '--limit-test', '70', '--width', '0.125'],
  ...['--epochs', '1', '--batch-size', '100', '--micro-batch', '25', '--flip', '--shift', '2'],
  ...['--runs', folder, '--port', '0', '--json'],
]

describe('convoy train on GPUs', () => {
  it('says what is missing where there is none', async () => {
    const run = new Convoy(['train', ...small, '--engine', 'cudnn', '--workers', '1'], {
      CONVOY_CUDA: '/nowhere',
    })
    expect(await run.ended).toBe(1)
    expect(run.event('error')).toMatchObject({ code: 'E_ENGINE_GPU' })
  })

  describe.skipIf(!compilerFound)('that are simulated (skipped where g++ is not installed)', () => {
    let gpu: SimulatedGpu
    beforeAll(() => {
      gpu = buildSimulatedGpu()
    })
    afterAll(() => gpu.remove())
    const train = (...args: string[]) => new Convoy(['train', ...small, ...args], { CONVOY_CUDA: gpu.folder })

    it('takes cudnn by itself, one worker a GPU', async () => {
      const run = train()
      const done = await run.done()
      expect(done).toMatchObject({
        step: 3,
        mixed: false,
        numerics: { engine: 'cudnn', precision: 'bf16', instructionSet: 'Simulated GPU sm_90' },
      })
      const hashes = [done['parametersSha256']]
      for (const workers of ['2', '3']) {
        const again = await train('--engine', 'cudnn', '--precision', 'bf16', '--workers', workers).done()
        hashes.push(again['parametersSha256'])
      }
      expect(new Set(hashes).size).toBe(1)
    })

    it('refuses a GPU that is not there', async () => {
      const run = train('--engine', 'cudnn', '--device', '1', '--workers', '1')
      expect(await run.ended).toBe(1)
      expect(run.event('error')).toMatchObject({
        code: 'E_ENGINE_GPU',
        message: 'there is no GPU 1: this machine has 1',
      })
    })
  })
})
