import { buildModel, initialise, parameterLayout } from '@convoy/model'
import { File, ready } from 'h5wasm/node'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StoredLayer } from './file.ts'
import { difference, matchWeights, readWeights, writeWeights } from './index.ts'
import { describe as describeConfig, topology } from './topology.ts'

// What people's files were refused for, or taken for something else.

const folder = mkdtempSync(path.join(tmpdir(), 'convoy-cases-'))
beforeAll(async () => {
  await ready
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string) => path.join(folder, name)

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.0625 })
const parameters = initialise(model, 'heUniform', 3)
const { views } = parameterLayout(model)
const part = (i: number) => parameters.slice(views[i].offset, views[i].offset + views[i].size)
const layers = (names: readonly string[]): StoredLayer[] =>
  names.map((name, i) => ({
    name,
    tensors: [2 * i, 2 * i + 1].map((j) => {
      const { role, shape } = views[j]
      return { name: `${name}.${role}`, shape, kind: 'float32', values: part(j) }
    }),
  }))
const names = [...Array.from({ length: 8 }, (_, i) => `conv${i + 1}`), 'class_conv']

describe('layers in another order than their names', () => {
  const sorted = layers(names).sort((a, b) => (a.name < b.name ? -1 : 1))

  it('are taken by their shapes, and that is said', () => {
    const { parameters: read, notes } = matchWeights({ format: 'x', layers: sorted, turned: 'no' }, model)
    expect(read).toEqual(parameters)
    expect(notes.join()).toMatch(/order of shapes.*: conv1, conv2, .*, conv8, class_conv/)
  })

  it('are taken as --order says', () => {
    const file = { format: 'x', layers: sorted, turned: 'no' } as const
    expect(matchWeights(file, model, { names }).parameters).toEqual(parameters)
    expect(() => matchWeights(file, model, { names: ['conv0'] })).toThrow(
      /no layer "conv0"; it has class_conv, conv1/,
    )
  })
})

describe('a model in a model', () => {
  it("is read from Keras 2's one group", async () => {
    const file = new File(at('nested.h5'), 'w')
    file.create_attribute('layer_names', ['image', 'sequential_1'])
    file.create_group('image').create_attribute('weight_names', [], [0], 'S1')
    const group = file.create_group('sequential_1')
    group.create_attribute(
      'weight_names',
      names.flatMap((name) => [`${name}/kernel:0`, `${name}/bias:0`]),
    )
    names.forEach((name, i) => {
      const inner = group.create_group(name)
      inner.create_dataset({
        name: 'kernel:0',
        data: part(2 * i),
        shape: [...views[2 * i].shape],
        dtype: '<f',
      })
      inner.create_dataset({
        name: 'bias:0',
        data: part(2 * i + 1),
        shape: [...views[2 * i + 1].shape],
        dtype: '<f',
      })
    })
    file.close()
    expect(matchWeights(await readWeights(at('nested.h5')), model).parameters).toEqual(parameters)
  })

  it("is read from Keras 3's groups within groups", async () => {
    const file = new File(at('nested.weights.h5'), 'w')
    const outer = file.create_group('layers')
    outer.create_group('sequential').create_group('layers').create_group('random_flip').create_group('vars')
    const inner = outer.create_group('sequential_1').create_group('layers')
    names.forEach((_, i) => {
      const vars = inner.create_group(i === 0 ? 'conv2d' : `conv2d_${i}`).create_group('vars')
      vars.create_dataset({ name: '0', data: part(2 * i), shape: [...views[2 * i].shape], dtype: '<f' })
      vars.create_dataset({
        name: '1',
        data: part(2 * i + 1),
        shape: [...views[2 * i + 1].shape],
        dtype: '<f',
      })
    })
    file.close()
    expect(matchWeights(await readWeights(at('nested.weights.h5')), model).parameters).toEqual(parameters)
  })
})

describe('quantized weights of TensorFlow.js', () => {
  it.each([
    ['uint8', new Uint8Array([0, 255]), [-1, 1.55]],
    ['uint16', new Uint16Array([0, 1000]), [-1, 9]],
    ['float16', new Uint16Array([0x3c00, 0xc000]), [1, -2]],
  ])('of %s are scaled back', async (dtype, numbers, values) => {
    const weight = {
      name: 'a/kernel',
      shape: [2],
      dtype: 'float32',
      quantization: { dtype, scale: 0.01, min: -1 },
    }
    writeFileSync(
      at('q.json'),
      JSON.stringify({ weightsManifest: [{ paths: ['q.bin'], weights: [weight] }] }),
    )
    writeFileSync(at('q.bin'), numbers)
    const [{ tensors }] = (await readWeights(at('q.json'))).layers
    values.forEach((value, i) => expect(tensors[0].values![i]).toBeCloseTo(value, 6))
    writeFileSync(at('q.bin'), new Uint8Array(numbers.buffer).subarray(0, 1))
    await expect(readWeights(at('q.json'))).rejects.toMatchObject({ code: 'E_WEIGHTS_FILE' })
  })
})

describe('a file that describes its network', () => {
  it('is the same as what it was written of', async () => {
    for (const name of ['same.h5', 'same.json']) {
      await writeWeights(at(name), parameters, { model })
      const { described } = await readWeights(at(name))
      expect(described && difference(described, model)).toBeUndefined()
      expect(described?.layers).toHaveLength(17)
    }
    expect(readFileSync(at('same.json')).length).toBeGreaterThan(0)
  })

  it.each([
    [
      'padding',
      (config: Record<string, unknown>) => (config['padding'] = 'valid'),
      /conv2d 3×3 stride 1×1 valid \(conv1\)/,
    ],
    [
      'activation',
      (config: Record<string, unknown>) => (config['activation'] = 'tanh'),
      /tanh \(conv1\) where that has relu/,
    ],
    [
      'stride',
      (config: Record<string, unknown>) => (config['strides'] = [2, 2]),
      /stride 2×2 same \(conv1\)/,
    ],
  ])('of another %s is told apart', (_, change, expected) => {
    const config = structuredClone(topology(model)) as unknown as {
      config: { layers: { class_name: string; config: Record<string, unknown> }[] }
    }
    change(config.config.layers.find(({ class_name }) => class_name === 'Conv2D')!.config)
    const { described } = describeConfig(config)
    expect(difference(described!, model)).toMatch(expected)
  })
})
