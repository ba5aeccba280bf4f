import {
  buildModel,
  freeze,
  modelNames,
  parameterLayout,
  trainedLayout,
  trainedRanges,
  type LayerSpec,
  type ModelSpec,
} from '@convoy/model'
import { differences, drawLeaf, Masks, referenceGradient } from '@convoy/engine'
import { heads, kinds, small } from '@convoy/engine/cases'
import * as tf from '@tensorflow/tfjs-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { noVulkan } from '../test/vulkan.ts'
import { createDawnEngine } from './dawn.ts'
import { createWebgpuEngine, type WebgpuEngine } from './webgpu.ts'

const choice = { engine: 'webgpu', precision: 'auto', threads: 1, device: 0, gpu: false } as const
type Leaf = ReturnType<typeof drawLeaf>

const nets = [...Object.entries(kinds).map(([name, layers]) => small(name, layers)), ...heads]
const zoo = modelNames.map((name) =>
  buildModel(name, { input: [16, 16, 3], classes: 10, width: 0.125, inputDropout: 0.2 }),
)
const named = (models: ModelSpec[]) => models.map((model) => [model.name, model] as const)

/** A software device compiles each shader for seconds, and on a busy machine for minutes. */
const SLOW = 900_000

describe.skipIf(noVulkan !== undefined)(
  `the webgpu engine${noVulkan ? ` (skipped: ${noVulkan})` : ''}`,
  { timeout: SLOW },
  () => {
    let engine: WebgpuEngine
    const warnings: string[] = []
    beforeAll(async () => {
      engine = await createDawnEngine(choice, (text) => warnings.push(text))
    }, SLOW)
    afterAll(() => engine.dispose())
    afterEach(() => void (warnings.length = 0))

    async function gradientOf(model: ModelSpec, { parameters, batch, masks }: Leaf) {
      const compiled = await engine.compile(model, batch.count)
      const gradient = new Float32Array(trainedLayout(model).size).fill(NaN)
      compiled.load(parameters)
      const result = await compiled.gradient(batch, masks, gradient)
      compiled.dispose()
      return { ...result, gradient }
    }
    const leafOf = (model: ModelSpec, seed: number, count = 3) => drawLeaf(model, count, seed)

    it('says what makes its bits: versions, adapter and driver', () => {
      expect(engine.numerics).toMatchObject({ engine: 'webgpu', precision: 'float32', threads: 1 })
      expect(engine.numerics.version).toMatch(/^4\.\d+\.\d+ Dawn \d+\.\d+\.\d+$/)
      expect(engine.numerics.instructionSet).toMatch(/, (vulkan|metal|d3d12)$/)
    })

    it.each(named([...nets, ...zoo]))('has the right gradient for %s', async (_, model) => {
      const leaf = leafOf(model, 1)
      const expected = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
      const { gradient, loss, correct } = await gradientOf(model, leaf)
      for (const { offset, size } of parameterLayout(model).views) {
        const part = (all: ArrayLike<number>) =>
          Array.prototype.slice.call(all, offset, offset + size) as number[]
        expect(differences(part(gradient), part(expected.gradient)).relative).toBeLessThan(1e-4)
      }
      expect(differences(gradient, expected.gradient).relative).toBeLessThan(1e-5)
      expect(loss).toBeCloseTo(expected.loss, 3)
      expect(correct).toBe(expected.correct)
    })

    it.each([0.5, 0.25, 0.0625, 1 / 256, 0.3, 0, 0.9])(
      'draws the masks that others are given, rate %d',
      async (rate) => {
        const layers: LayerSpec[] = [{ kind: 'dropout', rate }, ...kinds['one convolution']]
        // 11×9×5 numbers a sample: masks end within a word.
        const model: ModelSpec = { ...small('drawn', layers), input: [11, 9, 5] }
        const leaf = leafOf(model, 2)
        const masks = new Masks(model, 3)
        masks.fill({ seed: 1, epoch: 2, step: 3, leaf: 4 }, 3)
        const given = await gradientOf(model, { ...leaf, masks: { values: masks.values } })
        expect(await gradientOf(model, { ...leaf, masks })).toEqual(given)
      },
    )

    it('goes on with the same bits on a device that came back, and says so', async () => {
      const model = small('lost', kinds['dropout after ReLU'])
      const leaf = leafOf(model, 9)
      const other = leafOf(model, 11)
      const expected = await gradientOf(model, leaf)
      const compiled = await engine.compile(model, 3)
      const gradient = new Float32Array(leaf.parameters.length)
      compiled.load(leaf.parameters)
      const computed = async () => ({
        ...(await compiled.gradient(leaf.batch, leaf.masks, gradient)),
        gradient,
      })
      // Between leaves, while one is computed, while the next is begun, and at a prediction.
      engine.device.backend.device.destroy()
      await engine.device.backend.device.lost
      expect(await computed()).toEqual(expected)
      const underWay = computed()
      engine.device.backend.device.destroy()
      expect(await underWay).toEqual(expected)
      compiled.begin(other.batch, other.masks)
      compiled.begin(leaf.batch, leaf.masks)
      engine.device.backend.device.destroy()
      await compiled.gradient(other.batch, other.masks, gradient)
      expect(await computed()).toEqual(expected)
      const logits = new Float32Array(30)
      engine.device.backend.device.destroy()
      await compiled.predict(leaf.batch.images, 3, logits)
      compiled.dispose()
      const dropless = referenceGradient(model, leaf.parameters, leaf.batch, undefined)
      expect(differences(logits, dropless.logits).relative).toBeLessThan(1e-5)
      expect(warnings).toHaveLength(4)
      expect(warnings[0]).toMatch(/the WebGPU device was lost/)
    })

    describe('a compiled All-CNN-C', () => {
      const model = zoo[0]

      it('gives the same bits whatever it computed before, and for a leaf that was begun', async () => {
        const leaf = leafOf(model, 7, 4)
        const other = leafOf(model, 8, 4)
        const expected = await gradientOf(model, leaf)
        const compiled = await engine.compile(model, 4)
        const gradient = new Float32Array(leaf.parameters.length)
        for (let round = 0; round < 2; round++) {
          compiled.load(other.parameters)
          await compiled.gradient(other.batch, other.masks, gradient)
          await compiled.gradient({ ...other.batch, count: 3 }, other.masks, gradient)
          compiled.load(leaf.parameters)
          await compiled.predict(other.batch.images, 4, new Float32Array(40))
          if (round === 1) {
            compiled.begin(other.batch, other.masks)
            compiled.begin(leaf.batch, leaf.masks)
            await compiled.gradient(other.batch, other.masks, gradient)
          }
          expect({ ...(await compiled.gradient(leaf.batch, leaf.masks, gradient)), gradient }).toEqual(
            expected,
          )
        }
        compiled.dispose()
      })

      it('takes what it is given at the time of the call', async () => {
        const leaf = leafOf(model, 10, 2)
        const masks = new Masks(model, 2)
        masks.fill({ seed: 1, epoch: 2, step: 3, leaf: 4 }, 2)
        const expected = await gradientOf(model, { ...leaf, masks })
        const compiled = await engine.compile(model, 2)
        const parameters = leaf.parameters.slice()
        const batch = { ...leaf.batch, images: leaf.batch.images.slice() }
        const gradient = new Float32Array(parameters.length)
        compiled.load(parameters)
        parameters.fill(0)
        compiled.begin(batch, masks)
        batch.images.fill(0)
        masks.fill({ seed: 1, epoch: 2, step: 3, leaf: 5 }, 2)
        const result = await compiled.gradient(batch, masks, gradient)
        compiled.dispose()
        expect({ ...result, gradient }).toEqual(expected)
      })

      it.each(['conv1', 'conv2,conv9', 'all-but-1'])(
        'has the same gradient of the other layers with %s frozen',
        async (which) => {
          const partly = freeze(model, which)
          const leaf = leafOf(model, 6)
          const full = await gradientOf(model, leaf)
          const { gradient, loss } = await gradientOf(partly, leaf)
          expect(gradient).toHaveLength(trainedLayout(partly).size)
          for (const { parameter, gradient: at, size } of trainedRanges(partly))
            expect(gradient.subarray(at, at + size)).toEqual(
              full.gradient.subarray(parameter, parameter + size),
            )
          expect(loss).toBe(full.loss)
        },
      )

      it('predicts with dropout off', async () => {
        const leaf = leafOf(model, 5)
        const expected = referenceGradient(model, leaf.parameters, leaf.batch, undefined)
        const compiled = await engine.compile(model, 3)
        compiled.load(leaf.parameters)
        const logits = new Float32Array(3 * model.classes)
        await compiled.predict(leaf.batch.images, 3, logits)
        compiled.dispose()
        expect(differences(logits, expected.logits).relative).toBeLessThan(1e-5)
      })

      it('keeps NaN, so that a diverged network is noticed', async () => {
        const leaf = leafOf(model, 3)
        const parameters = leaf.parameters.slice().fill(NaN, 5, 6)
        const { loss, gradient } = await gradientOf(model, { ...leaf, parameters })
        expect(loss).toBeNaN()
        expect(gradient[gradient.length - 1]).toBeNaN()
      })

      it('keeps no tensor from step to step, and none after dispose', async () => {
        const leaf = leafOf(model, 8)
        const before = tf.memory().numTensors
        const compiled = await engine.compile(model, 3)
        const gradient = new Float32Array(leaf.parameters.length)
        const counts = new Set<number>()
        for (let step = 0; step < 3; step++) {
          compiled.load(leaf.parameters)
          await compiled.gradient(leaf.batch, leaf.masks, gradient)
          await compiled.predict(leaf.batch.images, 2, new Float32Array(20))
          counts.add(tf.memory().numTensors)
        }
        compiled.dispose()
        expect(counts.size).toBe(1)
        expect(tf.memory().numTensors).toBe(before)
      })

      it('refuses a leaf that does not fit, and says what does', async () => {
        const count =
          Math.ceil(engine.device.backend.device.limits.maxStorageBufferBindingSize / (4 * 16 * 16 * 12)) + 1
        await expect(engine.compile(model, count)).rejects.toMatchObject({
          code: 'E_ENGINE_GPU',
          message: expect.stringContaining(`a leaf of ${count} samples does not fit`) as string,
          remedy: expect.stringContaining('--micro-batch') as string,
        })
        expect((await gradientOf(model, leafOf(model, 1))).loss).toBeGreaterThan(0)
      })
    })
  },
)

describe('#createDawnEngine', () => {
  beforeEach(({ skip }) => skip(noVulkan !== undefined, noVulkan))

  it('refuses software where a GPU is demanded, and an adapter that is not there', async ({ skip }) => {
    await expect(createDawnEngine({ ...choice, device: 99 })).rejects.toMatchObject({
      code: 'E_ENGINE_GPU',
      message: expect.stringMatching(/there is no WebGPU adapter 99: this machine has \d/) as string,
    })
    const { webgpuGpuCount } = await import('./dawn.ts')
    skip((await webgpuGpuCount()) > 0, 'there is a GPU here')
    await expect(createDawnEngine({ ...choice, gpu: true })).rejects.toMatchObject({
      code: 'E_ENGINE_GPU',
      message: expect.stringContaining('a GPU was asked for and would not be used') as string,
    })
  })
})

describe('#createWebgpuEngine', () => {
  it('passes on why there is no device', async () => {
    const open = () => Promise.reject(new Error('no adapter'))
    await expect(createWebgpuEngine({ open, compiler: 'none', warn: () => {} })).rejects.toThrow('no adapter')
  })
})
