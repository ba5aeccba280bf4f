import { beforeAll, describe, expect, it } from 'vitest'
import { buildModel, freeze, modelNames, trainedLayout, trainedRanges, type ModelSpec } from '@convoy/model'
import { kinds, small } from '../cases.ts'
import type { NumericsClass } from '../engine.ts'
import { differences, drawLeaf, referenceGradient } from '../reference.ts'
import { checkItself, CudnnEngine } from './engine.ts'
import { compilerFound, SimulatedDevice } from './simulated.ts'

type Precision = 'float32' | 'tf32' | 'bf16'
type Leaf = ReturnType<typeof drawLeaf>

const numerics: NumericsClass = {
  engine: 'cudnn',
  version: 'simulated',
  precision: 'float32',
  instructionSet: 'simulated',
  threads: 1,
}

describe.skipIf(!compilerFound)(
  'the cudnn engine on a simulated device (skipped where g++ is not installed)',
  () => {
    const engines = {} as Record<Precision, CudnnEngine>
    beforeAll(() => {
      const device = new SimulatedDevice()
      for (const precision of ['float32', 'tf32', 'bf16'] as const)
        engines[precision] = new CudnnEngine(device, precision, numerics, 'simulated', () => undefined)
    })

    async function gradientOf(precision: Precision, model: ModelSpec, { parameters, batch, masks }: Leaf) {
      const compiled = await engines[precision].compile(model, batch.count)
      const gradient = new Float32Array(trainedLayout(model).size).fill(NaN)
      compiled.load(parameters)
      const result = compiled.gradient(batch, masks, gradient)
      compiled.dispose()
      return { ...result, gradient }
    }

    const models = [
      ...Object.entries(kinds).map(([name, layers]) => small(name, layers)),
      small('the sigmoid head', kinds['dropout after ReLU'], 'sigmoid'),
      ...modelNames.map((name) =>
        buildModel(name, { input: [16, 16, 3], classes: 10, width: 0.125, inputDropout: 0.2 }),
      ),
      // Channels that are a multiple of 8 take kernels of their own.
      buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 1 / 6, inputDropout: 0.2 }),
    ].map((model, i) => [`${model.name} (${i})`, model] as const)

    it.each(models)('has the gradient of %s in float32', async (_, model) => {
      const leaf = drawLeaf(model, 3, 1)
      const expected = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
      const { gradient, loss, correct } = await gradientOf('float32', model, leaf)
      expect(differences(gradient, expected.gradient).relative).toBeLessThan(1e-5)
      expect(loss).toBeCloseTo(expected.loss, 3)
      expect(correct).toBe(expected.correct)
    })

    it.each(models)('is near the gradient of %s in bf16', async (_, model) => {
      const leaf = drawLeaf(model, 8, 3)
      const expected = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
      const { gradient } = await gradientOf('bf16', model, leaf)
      // Rounding turns some ReLUs over, and each takes its whole gradient with it; small nets have few.
      expect(differences(gradient, expected.gradient).relative).toBeLessThan(
        model.input[0] === 12 ? 2e-2 : 1e-1,
      )
    })

    const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 10, width: 0.25, inputDropout: 0.2 })

    describe.each(['float32', 'bf16'] as const)('in %s', (precision) => {
      const leaf = drawLeaf(model, 4, 7)
      const other = drawLeaf(model, 4, 8)

      it('gives the same bits whatever it computed before', async () => {
        const expected = await gradientOf(precision, model, leaf)
        const compiled = await engines[precision].compile(model, 4)
        const gradient = new Float32Array(leaf.parameters.length)
        compiled.load(other.parameters)
        compiled.gradient(other.batch, other.masks, gradient)
        compiled.gradient({ ...other.batch, count: 3 }, other.masks, gradient)
        compiled.load(leaf.parameters)
        compiled.predict(other.batch.images, 4, new Float32Array(40))
        expect({ ...compiled.gradient(leaf.batch, leaf.masks, gradient), gradient }).toEqual(expected)
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
        expect(differences(logits, expected.logits).relative).toBeLessThan(precision === 'bf16' ? 2e-2 : 1e-5)
        compiled.dispose()
      })

      it('passes the check that it makes of itself', () => checkItself(engines[precision], precision))

      it('fails that check where a convolution is wrong', async () => {
        const wrong = new SimulatedDevice()
        const open = wrong.open.bind(wrong)
        wrong.open = (bytes) => {
          const session = open(bytes)
          return {
            host: (tensor) => session.host(tensor),
            dispose: () => session.dispose(),
            // As if cuDNN did nothing, once.
            run: (list) =>
              session.run(list.filter((call) => call.kind !== 'convolution' || call.name !== 'b/by kernel')),
          }
        }
        const engine = new CudnnEngine(wrong, precision, numerics, 'wrong', () => undefined)
        await expect(checkItself(engine, precision)).rejects.toThrow(
          expect.objectContaining({ code: 'E_ENGINE_GPU' }),
        )
      })
    })

    it('keeps NaN, so that a diverged network is noticed', async () => {
      const leaf = drawLeaf(model, 3, 1)
      leaf.parameters[5] = NaN
      const { loss } = await gradientOf('bf16', model, leaf)
      expect(loss).toBeNaN()
    })
  },
)
