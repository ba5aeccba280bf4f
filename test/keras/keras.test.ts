import { readCheckpoint } from '@convoy/coordinator'
import { createEngine } from '@convoy/engines'
import { buildModel, initialise, parameterLayout, type ModelSpec } from '@convoy/model'
import { matchWeights, readWeights, writeWeights, type Network } from '@convoy/weights'
import '@tensorflow/tfjs-backend-cpu'
import * as tf from '@tensorflow/tfjs-core'
import * as layers from '@tensorflow/tfjs-layers'
import { execFile, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from '../convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)
const at = (name: string) => path.join(folder, name)

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.125 })
const convolutions = model.layers.filter((layer) => layer.kind === 'conv2d')
/** Keras 1's network: it strides otherwise at the border, so it does not stride here. */
const unstrided: ModelSpec = {
  ...model,
  layers: model.layers.map((layer) => (layer.kind === 'conv2d' ? { ...layer, stride: [1, 1] } : layer)),
}
const network: Network = { model, classes: Array.from({ length: 10 }, (_, i) => `class ${i}`) }
const parameters = initialise(model, 'heUniform', 5)
for (const { role, offset, size } of parameterLayout(model).views)
  for (let i = offset; role === 'bias' && i < offset + size; i++) parameters[i] = Math.sin(i) / 2
const COUNT = 5
const images = Float32Array.from({ length: COUNT * 32 * 32 * 3 }, (_, i) => Math.sin(i * i * 0.37) * 1.5)

/** What Convoy answers to the images, in float32. */
async function logitsOf(spec: ModelSpec, weights: Float32Array): Promise<Float32Array> {
  const engine = await createEngine({
    ...{ engine: 'auto', precision: 'float32', threads: 1, device: 0, gpu: false },
  })
  const compiled = await engine.compile(spec, COUNT)
  compiled.load(weights)
  const logits = new Float32Array(COUNT * spec.classes)
  await compiled.predict(images, COUNT, logits)
  engine.dispose()
  return logits
}

function expectClose(ours: Float32Array, theirs: Float32Array): void {
  expect(theirs).toHaveLength(COUNT * 10)
  const differences = ours.map((value, i) => Math.abs(value - theirs[i]))
  expect(Math.max(...differences)).toBeLessThan(1e-5)
  // Logits that are all alike would say nothing.
  expect(Math.max(...theirs) - Math.min(...theirs)).toBeGreaterThan(0.5)
}

/** Pythons that may have Keras: those of CONVOY_KERAS_PYTHON, or python3. */
const pythons = (process.env['CONVOY_KERAS_PYTHON'] || 'python3').split(path.delimiter)
const find = 'import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])'
/** Each Keras that there is, with the library that it computes with. */
const peers = pythons.flatMap((python) => {
  const backends = ['tensorflow', 'jax', 'torch', 'theano']
  const { stdout } = spawnSync(python, ['-c', find, 'keras', 'tf_keras', ...backends], { encoding: 'utf8' })
  const has = (name: string) => stdout?.includes(`'${name}'`)
  const backend = backends.find(has)
  if (!backend) return []
  return ['keras', 'tf_keras'].filter(has).map((name) => ({ python, name, backend }))
})
const peer = path.join(path.dirname(fileURLToPath(import.meta.url)), 'peer.py')
const exported = ['convoy.h5', 'convoy.weights.h5', 'fast.h5', 'fast.weights.h5']

/** What a run with the recipe `fast` ends with, and how its checkpoint describes it. */
let fast: { readonly parameters: Float32Array; readonly network: Network }
beforeAll(async () => {
  await new Convoy([
    ...['train', '--recipe', 'fast', '--data', 'synthetic', '--limit-train', '410', '--limit-test', '20'],
    ...['--width', '0.125', '--epochs', '4', '--batch-size', '64', '--evaluate-every', '0', '--workers', '1'],
    ...['--runs', folder, '--name', 'fast', '--port', '0', '--json'],
  ]).done()
  const { parameters, network } = await readCheckpoint(at('fast/checkpoints/step-28.convoy'))
  fast = { parameters, network: network as Network }
})
/** Weights, and their network, by what their files are called. */
const weightsOf = (file: string) => (file.startsWith('fast') ? fast : { parameters, network })

describe('TensorFlow.js itself', () => {
  it.each(['convoy.json', 'fast.json'])('loads %s as Convoy writes it, and answers alike', async (file) => {
    const { parameters, network } = weightsOf(file)
    await writeWeights(at(file), parameters, network)
    const json = JSON.parse(readFileSync(at(file), 'utf8')) as {
      modelTopology: object
      weightsManifest: { paths: string[]; weights: tf.io.WeightsManifestEntry[] }[]
    }
    const [{ paths, weights }] = json.weightsManifest
    await tf.setBackend('cpu')
    const loaded = await layers.loadLayersModel({
      load: () =>
        Promise.resolve({
          modelTopology: json.modelTopology,
          weightSpecs: weights,
          weightData: Uint8Array.from(Buffer.concat(paths.map((name) => readFileSync(at(name))))).buffer,
        }),
    })
    const { output } = loaded.getLayer('logits')
    const theirs = layers
      .model({ inputs: loaded.inputs, outputs: output })
      .predict(tf.tensor(images, [COUNT, 32, 32, 3])) as tf.Tensor
    expectClose(await logitsOf(model, parameters), theirs.dataSync() as Float32Array)
  })
})

const reason =
  peers.length > 0
    ? ''
    : ' (skipped: python3 has no Keras; pip install keras jax, or set CONVOY_KERAS_PYTHON to pythons that have it)'
describe.skipIf(peers.length === 0)(`Keras itself${reason}`, () => {
  describe.each(peers)('$name of $python, on $backend', ({ python, name, backend }) => {
    const first = backend === 'theano'
    let told: { version: string; wrote: string[]; loaded: string[] }

    beforeAll(async () => {
      writeFileSync(at('images.f32'), images)
      for (const file of exported) {
        const { parameters, network } = weightsOf(file)
        await writeWeights(at(file), parameters, network)
      }
      const spec = convolutions.map(({ filters, kernel, stride }) => [filters, kernel[0], stride[0]])
      const run = (files: string[]) =>
        promisify(execFile)(python, [peer, name, JSON.stringify(spec), folder, ...files], {
          env: { ...process.env, KERAS_BACKEND: backend },
        })
      const { stdout } = await run(first ? [] : exported)
      told = JSON.parse(stdout.trim().split('\n').at(-1)!) as typeof told
    }, 600_000)

    const theirs = (file: string) => {
      const bytes = readFileSync(at(`${file}.f32`))
      return new Float32Array(Uint8Array.from(bytes).buffer)
    }

    it('writes what Convoy reads, and answers alike', async () => {
      expect(told.wrote.length).toBeGreaterThanOrEqual(3)
      for (const file of told.wrote) {
        const read = await readWeights(at(file))
        const spec = first ? unstrided : model
        // Keras 1 with Theano turns a kernel in either order; the file does not tell which backend it is of.
        const order = first && file.includes('-tf') ? { order: 'hwio-turned' as const } : {}
        const matched = matchWeights(read, spec, order)
        // What Keras 2 writes to these names is laid out as Keras 3 does it.
        const generation = /\.(weights\.h5|keras)$/.test(file) ? '3' : told.version[0]
        expect(read.format, file).toMatch(new RegExp(`^Keras ${generation}, save`))
        if (first) expect(matched.order).toBe(file.includes('-th') ? 'oihw-turned' : 'hwio-turned')
        expectClose(await logitsOf(spec, matched.parameters), theirs(file))
      }
    }, 600_000)

    it('loads what Convoy writes, and answers alike', async ({ skip }) => {
      skip(first, 'Keras 1 loads files of Keras 1 only')
      expect(told.loaded).toEqual(exported)
      for (const file of exported)
        expectClose(await logitsOf(model, weightsOf(file).parameters), theirs(file))
    }, 600_000)
  })
})
