import { buildSimulatedGpu, compilerFound, type SimulatedGpu } from '@convoy/engine-cudnn/simulated'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createEngine, engineNames } from './engines.ts'

describe('engineNames', () => {
  it('has every name that `--engine` takes, in the order of the help', () => {
    expect(engineNames).toEqual([
      'auto',
      'cudnn',
      'webgpu',
      'onednn',
      'tfjs',
      'tfjs-wasm',
      'tfjs-cpu',
      'tfjs-tensorflow',
    ])
  })
})

describe.skipIf(!compilerFound)('a simulated GPU (skipped where g++ is not installed)', () => {
  let gpu: SimulatedGpu
  beforeAll(() => {
    gpu = buildSimulatedGpu()
    process.env['CONVOY_CUDA'] = gpu.folder
  })
  afterEach(() => gpu.simulate(''))
  afterAll(() => gpu.remove())

  it('is passed over by `auto` where its gradients are wrong, and refused where a GPU is demanded', async () => {
    gpu.simulate('wrong')
    const choice = { engine: 'auto', precision: 'float32', threads: 1, device: 0 } as const
    const engine = await createEngine({ ...choice, gpu: false })
    expect(engine.numerics.engine).not.toBe('cudnn')
    engine.dispose()
    await expect(createEngine({ ...choice, gpu: true })).rejects.toThrow(
      expect.objectContaining({
        code: 'E_ENGINE_GPU',
        message: expect.stringMatching(
          /wrong gradient.*; a GPU was asked for and would not be used/,
        ) as string,
      }),
    )
    gpu.simulate('')
    const found = await createEngine({ ...choice, gpu: true })
    expect(found.numerics).toMatchObject({ engine: 'cudnn', precision: 'float32' })
    found.dispose()
  })
})
