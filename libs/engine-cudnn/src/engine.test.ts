import { createHash } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { buildModel } from '@convoy/model'
import { differences, drawLeaf, referenceGradient } from '@convoy/engine'
import { createCudnnEngine } from './engine.ts'
import { describeEngine } from '../test/shared.tests.ts'
import { buildSimulatedGpu, compilerFound, type SimulatedGpu } from '../test/simulated.ts'

describe.skipIf(!compilerFound)(
  'the cudnn engine on a simulated GPU (skipped where g++ is not installed)',
  () => {
    let gpu: SimulatedGpu
    beforeAll(() => {
      gpu = buildSimulatedGpu()
      process.env['CONVOY_CUDA'] = gpu.folder
    })
    afterEach(() => {
      gpu.simulate('')
      gpu.schedule(0)
    })
    afterAll(() => gpu.remove())

    describeEngine()

    it('runs all but the first of a kind of step as a graph', async () => {
      const engine = await createCudnnEngine({ precision: 'bf16', device: 0 })
      const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125 })
      const { parameters, batch, masks } = drawLeaf(model, 2, 1)
      const compiled = await engine.compile(model, 2)
      const before = gpu.graphLaunches()
      compiled.load(parameters)
      for (let step = 0; step < 5; step++)
        compiled.gradient(batch, masks, new Float32Array(parameters.length))
      // Four of five steps; parameters were loaded when it was compiled, and then once more.
      expect(gpu.graphLaunches() - before).toBe(4 + 1)
      engine.dispose()
    })

    // Where a stream does not wait for what it needs, one of these orders gives other numbers.
    it.each(['late', 2, 3, 4, 5, 6, 7, 8, 9])(
      'computes the same bits in the streams’ order %s',
      async (order) => {
        const model = buildModel('all-cnn-c', {
          input: [8, 8, 3],
          classes: 10,
          width: 0.125,
          inputDropout: 0.2,
        })
        const leaves = Array.from({ length: 9 }, (_, i) => drawLeaf(model, i % 4 === 3 ? 1 : 2, i))
        const logits = new Float32Array(20)
        const run = async () => {
          const engine = await createCudnnEngine({ precision: 'float32', device: 0 })
          const compiled = await engine.compile(model, 2)
          const hash = createHash('sha256')
          for (const { parameters } of leaves.slice(0, 3)) {
            compiled.load(parameters)
            compiled.begin(leaves[0].batch, leaves[0].masks)
            leaves.forEach(({ batch, masks }, i) => {
              const next = leaves[i + 1]
              if (next) compiled.begin(next.batch, next.masks)
              const gradient = new Float32Array(parameters.length)
              const { loss } = compiled.gradient(batch, masks, gradient)
              hash.update(new Uint8Array(gradient.buffer)).update(String(loss))
            })
            compiled.predict(leaves[0].batch.images, 2, logits)
            hash.update(new Uint8Array(logits.buffer))
          }
          engine.dispose()
          return hash.digest('hex')
        }
        const expected = await run()
        gpu.schedule(order === 'late' ? 1 : Number(order))
        expect(await run()).toBe(expected)
      },
    )

    it('frees what it makes', async () => {
      const before = gpu.liveObjects()
      const engine = await createCudnnEngine({ precision: 'bf16', device: 0 })
      const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125 })
      const { parameters, batch, masks } = drawLeaf(model, 8, 1)
      const compiled = await engine.compile(model, 8)
      compiled.load(parameters)
      // More sizes than are kept.
      for (const count of [8, 1, 2, 3, 4, 5, 8])
        compiled.gradient({ ...batch, count }, masks, new Float32Array(parameters.length))
      engine.dispose()
      expect(gpu.liveObjects()).toBe(before)
    })

    it('does without the fastest way of a forward convolution', async () => {
      gpu.simulate('few-algorithms')
      const engine = await createCudnnEngine({ precision: 'auto', device: 0 })
      expect(engine.numerics.precision).toBe('bf16')
      engine.dispose()
    })

    it('computes in TF32 what cuDNN does not have in bf16', async () => {
      const model = buildModel('all-cnn-c', {
        input: [16, 16, 3],
        classes: 10,
        width: 1 / 6,
        inputDropout: 0.2,
      })
      const { parameters, batch, masks } = drawLeaf(model, 8, 3)
      const expected = referenceGradient(model, parameters, batch, masks)
      gpu.simulate('multiples-of-8')
      const engine = await createCudnnEngine({ precision: 'bf16', device: 0 })
      const compiled = await engine.compile(model, 8)
      const gradient = new Float32Array(parameters.length)
      compiled.load(parameters)
      compiled.gradient(batch, masks, gradient)
      expect(differences(gradient, expected.gradient).relative).toBeLessThan(1.2e-1)
      engine.dispose()
    })

    it('goes on call by call where steps cannot be recorded, and says so', async () => {
      const before = gpu.liveObjects()
      gpu.simulate('unrecordable')
      const engine = await createCudnnEngine({ precision: 'bf16', device: 0 })
      expect(engine.description).toBe(
        'cuDNN 9.28.0, NVRTC 12.9, bf16, Simulated GPU (GPU 0), its steps cannot be recorded as graphs',
      )
      engine.dispose()
      expect(gpu.liveObjects()).toBe(before)
    })

    it.each([
      ['wrong', /computes a wrong gradient: it is .* off/],
      ['unsteady', /another gradient each time/],
      ['no-algorithm', /find a deterministic algorithm for a convolution \(forward\).*NOT_SUPPORTED/],
    ])('refuses a GPU that is %s, and frees what it made', async (fault, message) => {
      const before = gpu.liveObjects()
      gpu.simulate(fault)
      await expect(createCudnnEngine({ precision: 'float32', device: 0 })).rejects.toThrow(
        expect.objectContaining({
          code: 'E_ENGINE_GPU',
          message: expect.stringMatching(message) as string,
        }),
      )
      expect(gpu.liveObjects()).toBe(before)
    })

    it('refuses bf16 on a GPU that is too old for it, and does without by itself', async () => {
      gpu.simulate('old')
      await expect(createCudnnEngine({ precision: 'bf16', device: 0 })).rejects.toThrow(
        expect.objectContaining({
          code: 'E_ENGINE_GPU',
          message: 'Simulated GPU has no bf16 (its compute capability is 7, and 8.0 is needed)',
        }),
      )
      const engine = await createCudnnEngine({ precision: 'auto', device: 0 })
      expect(engine.numerics.precision).toBe('float32')
      engine.dispose()
    })

    it('refuses a GPU that is not there', async () => {
      await expect(createCudnnEngine({ precision: 'auto', device: 3 })).rejects.toThrow(
        expect.objectContaining({
          code: 'E_ENGINE_GPU',
          message: 'there is no GPU 3: this machine has 1',
          remedy: 'Use --device 0.',
        }),
      )
    })

    it('says so where the memory of the GPU does not suffice', async () => {
      const engine = await createCudnnEngine({ precision: 'float32', device: 0 })
      const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })
      await expect(engine.compile(model, 2048)).rejects.toThrow(
        expect.objectContaining({
          code: 'E_ENGINE_GPU',
          remedy: expect.stringContaining('--micro-batch') as string,
        }),
      )
      await expect(engine.compile(model, 100_000)).rejects.toThrow(
        expect.objectContaining({
          code: 'E_ENGINE_GPU',
          message: expect.stringContaining('too large') as string,
        }),
      )
      engine.dispose()
    })
  },
)
