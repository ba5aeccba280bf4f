import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { LeafImages } from '@convoy/data'
import {
  buildModel,
  freeze,
  modelNames,
  trainedLayout,
  trainedRanges,
  volume,
  type LayerSpec,
  type ModelSpec,
} from '@convoy/model'
import { heads, kinds, small } from '@convoy/engine/cases'
import { differences, drawLeaf, Masks, referenceGradient, type DropoutMasks } from '@convoy/engine'
import { createCudnnEngine, type CudnnEngine } from '../src/engine.ts'

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
      ...heads,
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

  describe('images that it makes of stored ones', () => {
    /** A leaf of random bytes, of samples that are varied differently in each epoch. */
    const storedLeaf = (input: ModelSpec['input'], count: number, shift: number, epoch = 0) => {
      const mean = [0.4913, 0.4821, 0.4465, 0.5].slice(0, input[2])
      const deviation = mean.map((value) => value / 2)
      const preprocessing = { kind: 'channels', mean, deviation } as const
      const leaf = new LeafImages(input, preprocessing, { flip: true, shift }, count)
      for (let sample = 0; sample < count; sample++) {
        const pixels = Uint8Array.from({ length: volume(input) }, (_, i) => (i * i * 31 + sample * 77) % 256)
        leaf.add(pixels, sample % 2, { seed: 1, epoch, sample })
      }
      return leaf
    }

    it.each<[ModelSpec['input'], number]>([
      [[32, 32, 3], 4],
      [[5, 7, 1], 12],
      [[1, 9, 4], 3],
      [[8, 8, 3], 0],
    ])('are those of ImageFiller, bit for bit: %j shifted by up to %i', async (input, shift) => {
      // With parameters of 0 the gradient of this kernel is the image times -0.5, or 0.5, exactly.
      const model: ModelSpec = {
        name: 'mirror',
        input,
        layers: [
          {
            kind: 'conv2d',
            name: 'a',
            filters: 2,
            kernel: [input[0], input[1]],
            stride: [1, 1],
            padding: 'valid',
          },
          { kind: 'globalAveragePool' },
        ],
        head: 'softmax',
        classes: 2,
      }
      const compiled = await engines.float32.compile(model, 1)
      const gradient = new Float32Array(2 * volume(input) + 2)
      compiled.load(new Float32Array(gradient.length))
      for (let epoch = 0; epoch < 40; epoch++) {
        const leaf = storedLeaf(input, 1, shift, epoch)
        compiled.gradient(leaf, { values: [] }, gradient)
        const made = leaf.images.map((_, i) => -2 * gradient[2 * i])
        expect(made).toEqual(leaf.images)
      }
      compiled.dispose()
    })

    it.each(precisions)('give the gradient of the images in %s', async (precision) => {
      const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.125 })
      const leaf = storedLeaf(model.input, 4, 3)
      const { parameters, masks } = drawLeaf(model, 4, 1)
      const { count, images, labels } = leaf
      const given = await gradientOf(precision, model, {
        parameters,
        batch: { count, images, labels },
        masks,
      })
      expect(await gradientOf(precision, model, { parameters, batch: leaf, masks })).toEqual(given)
    })
  })

  describe('#begin', () => {
    const model = buildModel('all-cnn-c', {
      input: [16, 16, 3],
      classes: 10,
      width: 0.125,
      inputDropout: 0.2,
    })
    const { parameters } = drawLeaf(model, 1, 1)
    const other = drawLeaf(model, 1, 2).parameters
    // The last one is short, and so of another plan.
    const leaves = Array.from({ length: 7 }, (_, i) => ({
      ...drawLeaf(model, i < 6 ? 2 : 1, 20 + i),
      parameters,
    }))

    it('gives the same bits as leaves that are computed one by one', async () => {
      const alone = []
      for (const leaf of leaves) alone.push(await gradientOf('float32', model, leaf))
      const compiled = await engines.float32.compile(model, 2)
      for (let round = 0; round < 3; round++) {
        compiled.load(other)
        // Parameters that are replaced before the leaf is asked for.
        compiled.begin(leaves[0].batch, leaves[0].masks)
        compiled.load(parameters)
        compiled.begin(leaves[0].batch, leaves[0].masks)
        const ahead = leaves.map(({ batch, masks }, i) => {
          const gradient = new Float32Array(parameters.length)
          const next = leaves[i + 1]
          if (next) compiled.begin(next.batch, next.masks)
          return { ...compiled.gradient(batch, masks, gradient), gradient }
        })
        expect(ahead.map(({ loss }) => loss)).toEqual(alone.map(({ loss }) => loss))
        expect(ahead).toEqual(alone)
      }
      compiled.dispose()
    })

    it('gives up what was begun where another leaf is asked for', async () => {
      const [first, second, third] = leaves
      const alone = await gradientOf('float32', model, third)
      const compiled = await engines.float32.compile(model, 2)
      compiled.load(parameters)
      compiled.begin(first.batch, first.masks)
      compiled.begin(second.batch, second.masks)
      const gradient = new Float32Array(parameters.length)
      expect({ ...compiled.gradient(third.batch, third.masks, gradient), gradient }).toEqual(alone)
      compiled.dispose()
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
