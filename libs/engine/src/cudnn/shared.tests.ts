import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import {
  buildModel,
  freeze,
  modelNames,
  trainedLayout,
  trainedRanges,
  type LayerSpec,
  type ModelSpec,
} from '@convoy/model'
import { kinds, small } from '../cases.ts'
import type { DropoutMasks } from '../engine.ts'
import { Masks } from '../masks.ts'
import { differences, drawLeaf, referenceGradient } from '../reference.ts'
import { createCudnnEngine, type CudnnEngine } from './engine.ts'

type Precision = 'float32' | 'tf32' | 'bf16'
type Leaf = ReturnType<typeof drawLeaf>

/** What holds on a GPU and on a simulated one. */
export function describeEngine(): void {
  const precisions = ['float32', 'tf32', 'bf16'] as const
  const engines = {} as Record<Precision, CudnnEngine>
  beforeAll(async () => {
    for (const precision of precisions) engines[precision] = await createCudnnEngine({ precision, device: 0 })
  })
  afterAll(() => {
    for (const precision of precisions) engines[precision].dispose()
  })

  async function gradientOf(precision: Precision, model: ModelSpec, { parameters, batch, masks }: Leaf) {
    const compiled = await engines[precision].compile(model, batch.count)
    const gradient = new Float32Array(trainedLayout(model).size).fill(NaN)
    compiled.load(parameters)
    const result = compiled.gradient(batch, masks, gradient)
    compiled.dispose()
    return { ...result, gradient }
  }

  describe('#gradient', () => {
    const cifar = { input: [16, 16, 3], classes: 10, inputDropout: 0.2 } as const
    const models = [
      ...Object.entries(kinds).map(([name, layers]) => small(name, layers)),
      small('the sigmoid head', kinds['dropout after ReLU'], 'sigmoid'),
      ...modelNames.map((name) => buildModel(name, { ...cifar, width: 0.125 })),
      // Channels that are a multiple of 8 have kernels of their own.
      buildModel('all-cnn-c', { ...cifar, width: 1 / 6 }),
    ].map((model) => [model.name.replace(/(\.\d{3})\d+/, '$1'), model] as const)

    it.each(models)('is right for %s in float32', async (_, model) => {
      const leaf = drawLeaf(model, 3, 1)
      const expected = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
      const { gradient, loss, correct } = await gradientOf('float32', model, leaf)
      expect(differences(gradient, expected.gradient).relative).toBeLessThan(1e-5)
      expect(loss).toBeCloseTo(expected.loss, 3)
      expect(correct).toBe(expected.correct)
    })

    // What rounding costs is mostly ReLUs that turn over, and each takes its whole gradient along: the networks of the paper
    // at an eighth of their width, on a few images of noise, are some hundredths off by that.
    it.each(models)('is near for %s in TF32 and bf16', async (_, model) => {
      const leaf = drawLeaf(model, 8, 3)
      const expected = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
      const deep = model.layers.length > 8
      for (const [precision, limit] of [
        ['tf32', deep ? 3e-2 : 2e-2],
        ['bf16', deep ? 1.2e-1 : 2e-2],
      ] as const) {
        const { gradient } = await gradientOf(precision, model, leaf)
        expect(differences(gradient, expected.gradient).relative).toBeLessThan(limit)
      }
    })
  })

  describe.each(precisions)('a compiled model in %s', (precision) => {
    const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.25, inputDropout: 0.2 })
    const leaf = drawLeaf(model, 4, 7)
    const other = drawLeaf(model, 4, 8)

    it('gives the same bits whatever it computed before, call by call or recorded', async () => {
      const expected = await gradientOf(precision, model, leaf)
      const compiled = await engines[precision].compile(model, 4)
      const gradient = new Float32Array(leaf.parameters.length)
      for (let round = 0; round < 3; round++) {
        compiled.load(other.parameters)
        compiled.gradient(other.batch, other.masks, gradient)
        compiled.gradient({ ...other.batch, count: 3 }, other.masks, gradient)
        compiled.load(leaf.parameters)
        compiled.predict(other.batch.images, 4, new Float32Array(40))
        expect({ ...compiled.gradient(leaf.batch, leaf.masks, gradient), gradient }).toEqual(expected)
      }
      compiled.dispose()
    })

    it.each(['conv1', 'conv1,conv3', 'conv2,conv9', 'all-but-2', 'all-but-1'])(
      'has the same gradient of the other layers with %s frozen',
      async (which) => {
        const partly = freeze(model, which)
        const full = await gradientOf(precision, model, leaf)
        const { gradient, loss } = await gradientOf(precision, partly, leaf)
        for (const { parameter, gradient: at, size } of trainedRanges(partly))
          expect(gradient.subarray(at, at + size)).toEqual(
            full.gradient.subarray(parameter, parameter + size),
          )
        expect(loss).toBe(full.loss)
      },
    )

    it('predicts with dropout off', async () => {
      const expected = referenceGradient(model, leaf.parameters, leaf.batch, undefined)
      const compiled = await engines[precision].compile(model, 2)
      const logits = new Float32Array(40)
      compiled.load(leaf.parameters)
      compiled.predict(leaf.batch.images, 4, logits)
      const limits = { float32: 1e-5, tf32: 3e-3, bf16: 2e-2 }
      expect(differences(logits, expected.logits).relative).toBeLessThan(limits[precision])
      compiled.dispose()
    })

    it('keeps NaN, so that a diverged network is noticed', async () => {
      const parameters = leaf.parameters.slice().fill(NaN, 5, 6)
      const { loss, gradient } = await gradientOf(precision, model, { ...leaf, parameters })
      expect(loss).toBeNaN()
      expect(gradient[gradient.length - 1]).toBeNaN()
    })
  })

  describe('a mask that it draws', () => {
    const tail: LayerSpec[] = [
      { kind: 'conv2d', name: 'a', filters: 10, kernel: [3, 3], stride: [1, 1], padding: 'same' },
      { kind: 'globalAveragePool' },
    ]
    const models = [
      // 11×9×5 numbers a sample: no multiple of 4. These rates take 1, 2, 4, 8 and 16 bits.
      ...[0.5, 0.25, 0.0625, 1 / 256, 0.3, 0, 0.9].map((rate): ModelSpec => ({
        ...small(`rate ${rate}`, [{ kind: 'dropout', rate }, ...tail]),
        input: [11, 9, 5],
      })),
      buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125, inputDropout: 0.2 }),
    ].map((model) => [model.name, model] as const)

    it.each(models)('is the one that other engines are given: %s', async (_, model) => {
      for (const count of [1, 2, 5]) {
        const masks = new Masks(model, count)
        const { parameters, batch } = drawLeaf(model, count, 1)
        const compiled = await engines.float32.compile(model, count)
        const gradient = (masks: DropoutMasks) => {
          const into = new Float32Array(parameters.length)
          compiled.gradient(batch, masks, into)
          return into
        }
        compiled.load(parameters)
        const drawn = [1, 2, 3].map((step) => {
          masks.fill({ seed: 1, epoch: 0, step, leaf: 0 }, count)
          const own = gradient(masks)
          expect(own).toEqual(gradient({ values: masks.values }))
          return own.join()
        })
        if (model.name !== 'rate 0') expect(new Set(drawn).size).toBeGreaterThan(1)
        compiled.dispose()
      }
    })
  })

  it('says what its bits depend on', () => {
    const { numerics } = engines.bf16
    expect(numerics).toMatchObject({ engine: 'cudnn', precision: 'bf16', threads: 1 })
    expect(numerics.version).toMatch(/^9\.\d+\.\d+, NVRTC \d+\.\d+$/)
    expect(numerics.instructionSet).toMatch(/ sm_\d+$/)
  })

  it('refuses a leaf that is larger than it was compiled for', async () => {
    const model = small('small', kinds['one convolution'])
    const compiled = await engines.float32.compile(model, 2)
    const { parameters, batch, masks } = drawLeaf(model, 3, 1)
    expect(() => compiled.gradient(batch, masks, new Float32Array(parameters.length))).toThrow(
      expect.objectContaining({ code: 'E_INTERNAL' }),
    )
    compiled.dispose()
  })
}
