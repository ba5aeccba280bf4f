import {
  buildModel,
  freeze,
  modelNames,
  parameterLayout,
  trainedLayout,
  trainedRanges,
  type ModelSpec,
} from '@convoy/model'
import * as tf from '@tensorflow/tfjs-core'
import { beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { heads, kinds, small } from '@convoy/engine/cases'
import { crossEntropy, differences, drawLeaf, referenceGradient } from '@convoy/engine'
import { prepareBackend, type Backend } from './backend.ts'
import { createTfjsEngine, type TfjsEngine } from './engine.ts'
import { tensorflowIsSetUp } from './libtensorflow.ts'

const backends = [
  { backend: 'cpu', here: true },
  { backend: 'wasm', here: true },
  { backend: 'tensorflow', here: tensorflowIsSetUp() },
] as const
const engines = {} as Record<Backend, TfjsEngine>
beforeAll(async () => {
  for (const { backend, here } of backends)
    if (here) engines[backend] = await createTfjsEngine({ backend, gpu: false })
})

type Leaf = ReturnType<typeof drawLeaf>

async function gradientOf(backend: Backend, model: ModelSpec, { parameters, batch, masks }: Leaf) {
  const compiled = await engines[backend].compile(model, batch.count)
  const gradient = new Float32Array(trainedLayout(model).size)
  compiled.load(parameters)
  const result = compiled.gradient(batch, masks, gradient)
  compiled.dispose()
  return { ...result, gradient }
}

const nets = [...Object.entries(kinds).map(([name, layers]) => small(name, layers)), ...heads]
const zoo = modelNames.map((name) =>
  buildModel(name, { input: [16, 16, 3], classes: 10, width: 0.125, inputDropout: 0.2 }),
)
const named = (models: ModelSpec[]) => models.map((model) => [model.name, model] as const)

describe.for(backends)('TensorFlow.js on $backend', ({ backend, here }) => {
  beforeEach(({ skip }) => skip(!here, 'convoy setup tensorflow was not run'))

  it.each(named([...nets, ...zoo]))('has the right gradient for %s', async (_, model) => {
    const leaf = drawLeaf(model, 3, 1)
    const expected = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
    const { gradient, loss, correct } = await gradientOf(backend, model, leaf)
    for (const { offset, size } of parameterLayout(model).views) {
      const part = (all: ArrayLike<number>) =>
        Array.prototype.slice.call(all, offset, offset + size) as number[]
      expect(differences(part(gradient), part(expected.gradient)).relative).toBeLessThan(1e-4)
    }
    expect(differences(gradient, expected.gradient).relative).toBeLessThan(1e-5)
    expect(loss).toBeCloseTo(expected.loss, 3)
    expect(correct).toBe(expected.correct)
  })

  it.each(['conv1', 'conv1,conv3', 'conv2,conv9', 'all-but-2', 'all-but-1'])(
    'has the same gradient of the other layers with %s frozen',
    async (which) => {
      const model = zoo[0]
      const partly = freeze(model, which)
      const leaf = drawLeaf(model, 3, 6)
      const full = await gradientOf(backend, model, leaf)
      const { gradient, loss } = await gradientOf(backend, partly, leaf)
      expect(gradient).toHaveLength(trainedLayout(partly).size)
      for (const { parameter, gradient: at, size } of trainedRanges(partly))
        expect(gradient.subarray(at, at + size)).toEqual(full.gradient.subarray(parameter, parameter + size))
      expect(loss).toBe(full.loss)
    },
  )

  it('predicts with dropout off', async () => {
    const model = zoo[0]
    const leaf = drawLeaf(model, 3, 5)
    const expected = referenceGradient(model, leaf.parameters, leaf.batch, undefined)
    const compiled = await engines[backend].compile(model, 3)
    compiled.load(leaf.parameters)
    const logits = new Float32Array(3 * model.classes)
    compiled.predict(leaf.batch.images, 3, logits)
    compiled.dispose()
    expect(differences(logits, expected.logits).relative).toBeLessThan(1e-5)
  })

  it.each(['softmax', 'sigmoid'] as const)(
    'predicts what it trains on where nothing drops, %s',
    async (head) => {
      const model = buildModel('base-c', { input: [16, 16, 3], classes: 10, width: 0.125, dropout: 0, head })
      const { parameters, batch } = drawLeaf(model, 3, 9)
      const compiled = await engines[backend].compile(model, 4)
      compiled.load(parameters)
      const trained = compiled.gradient(batch, { values: [] }, new Float32Array(parameters.length))
      const logits = new Float32Array(3 * model.classes)
      compiled.predict(batch.images, 3, logits)
      compiled.dispose()
      const predicted = { loss: 0, correct: 0 }
      crossEntropy(model, logits, batch.labels, 3, new Float32Array(logits.length), predicted)
      expect(predicted).toEqual(trained)
    },
  )

  it('takes what it is given at the time of the call', async () => {
    const model = zoo[0]
    const { parameters, batch, masks } = drawLeaf(model, 2, 10)
    const compiled = await engines[backend].compile(model, 2)
    const given = parameters.slice()
    const gradients = [0, 1].map(() => new Float32Array(parameters.length))
    compiled.load(given)
    compiled.gradient(batch, masks, gradients[0])
    given.fill(0)
    compiled.gradient(batch, masks, gradients[1])
    compiled.dispose()
    expect(gradients[1]).toEqual(gradients[0])
  })

  it('gives the same bits each time, whatever was computed before', async () => {
    const model = zoo[0]
    const leaf = drawLeaf(model, 4, 6)
    const first = await gradientOf(backend, model, leaf)
    await gradientOf(backend, model, drawLeaf(model, 2, 7))
    const second = await gradientOf(backend, model, leaf)
    expect(Buffer.from(second.gradient.buffer).equals(Buffer.from(first.gradient.buffer))).toBe(true)
    expect(second.loss).toBe(first.loss)
  })

  it('keeps no tensor from step to step, and none after dispose', async () => {
    const model = zoo[0]
    const { parameters, batch, masks } = drawLeaf(model, 2, 8)
    const before = tf.memory().numTensors
    const compiled = await engines[backend].compile(model, 2)
    const gradient = new Float32Array(parameters.length)
    const counts = Array.from({ length: 4 }, () => {
      compiled.load(parameters)
      compiled.gradient(batch, masks, gradient)
      compiled.predict(batch.images, 2, new Float32Array(20))
      return tf.memory().numTensors
    })
    compiled.dispose()
    expect(new Set(counts).size).toBe(1)
    expect(tf.memory().numTensors).toBe(before)
  })
})

describe('TensorFlow.js on libtensorflow', () => {
  const absent = (name: string) => {
    throw Object.assign(new Error(`Cannot find module '${name}'`), { code: 'MODULE_NOT_FOUND' })
  }

  it('says what is not installed and what to do', async () => {
    await expect(prepareBackend('tensorflow', false, 1, absent)).rejects.toMatchObject({
      code: 'E_ENGINE',
      message: '@tensorflow/tfjs-node-gpu is not installed; @tensorflow/tfjs-node is not installed',
      remedy: expect.stringContaining('convoy setup tensorflow') as string,
    })
  })

  it('tells a package that does not load from one that is not there', async () => {
    const broken = () => {
      throw Object.assign(new Error("Cannot find module '/x/tfjs_binding.node'\nRequire stack:"), {
        code: 'MODULE_NOT_FOUND',
      })
    }
    await expect(prepareBackend('tensorflow', false, 1, broken)).rejects.toMatchObject({
      message: expect.stringMatching(
        /tfjs-node-gpu does not load: Cannot find module '\/x\/tfjs_binding.node';/,
      ) as string,
    })
  })

  it('refuses a GPU package that loads and computes on the CPU', async () => {
    if (tf.findBackendFactory('tensorflow')) tf.removeBackend('tensorflow')
    const { MathBackendCPU } = await import('@tensorflow/tfjs-backend-cpu')
    const load = () =>
      tf.registerBackend('tensorflow', () => Object.assign(new MathBackendCPU(), { isUsingGpuDevice: false }))
    await expect(prepareBackend('tensorflow', true, 1, load)).rejects.toMatchObject({
      code: 'E_ENGINE_GPU',
      message: expect.stringContaining('found no GPU') as string,
    })
    tf.removeBackend('tensorflow')
  })

  it('refuses another number of threads than this process has', async () => {
    await expect(prepareBackend('tensorflow', false, 3, absent)).rejects.toMatchObject({
      code: 'E_ENGINE',
      message: expect.stringContaining('has 1 threads in this process') as string,
    })
  })

  it('refuses a GPU that would not be used, naming what was found and what is wanted', async () => {
    await expect(prepareBackend('tensorflow', true, 1, absent)).rejects.toMatchObject({
      code: 'E_ENGINE_GPU',
      message: expect.stringMatching(/Found .*; wanted CUDA 12\.5 .* with cuDNN 9\.3/) as string,
    })
    await expect(createTfjsEngine({ backend: 'wasm', gpu: true })).rejects.toMatchObject({
      code: 'E_ENGINE_GPU',
    })
  })
})
