import { buildModel, initialise, parameterLayout, type ModelSpec } from '@convoy/model'
import fc from 'fast-check'
import { File, type Group, ready } from 'h5wasm/node'
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { matchWeights, readWeights, requireFinite, writeWeights } from './index.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'convoy-weights-'))
beforeAll(async () => {
  await ready
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.0625 })
const parameters = initialise(model, 'heUniform', 7)
const { views } = parameterLayout(model)
parameters.forEach((_, i) => {
  if (views.some(({ role, offset, size }) => role === 'bias' && i >= offset && i < offset + size))
    parameters[i] = i / 1000
})

interface Weight {
  layer: string
  kernel: { shape: number[]; values: Float32Array }
  bias: { shape: number[]; values: Float32Array }
}

/** The test's own Theano order: OIHW, each plane turned by 180°. */
function theano(values: Float32Array, [height, width, input, output]: number[]): Float32Array {
  const into = new Float32Array(values.length)
  for (let o = 0, at = 0; o < output; o++)
    for (let i = 0; i < input; i++)
      for (let y = height - 1; y >= 0; y--)
        for (let x = width - 1; x >= 0; x--) into[at++] = values[((y * width + x) * input + i) * output + o]
  return into
}

function weightsOf(order: 'tensorflow' | 'theano' = 'tensorflow'): Weight[] {
  return views
    .filter(({ role }) => role === 'kernel')
    .map((kernel, i) => {
      const bias = views[2 * i + 1]
      const values = parameters.slice(kernel.offset, kernel.offset + kernel.size)
      const [h, w, input, output] = kernel.shape
      return {
        layer: kernel.name.replace('/kernel', ''),
        kernel:
          order === 'theano'
            ? { shape: [output, input, h, w], values: theano(values, [...kernel.shape]) }
            : { shape: [...kernel.shape], values },
        bias: { shape: [...bias.shape], values: parameters.slice(bias.offset, bias.offset + bias.size) },
      }
    })
}

const dataset = (group: Group, name: string, { shape, values }: Weight['kernel']) =>
  group.create_dataset({ name, data: values, shape, dtype: '<f' })

type Writer = (root: File, weights: Weight[]) => void

const keras1 =
  (saved: 'weights' | 'model'): Writer =>
  (root, weights) => {
    if (saved === 'model') {
      root.create_attribute('keras_version', '1.2.2', null, 'S5')
      root.create_attribute('model_config', '{"class_name": "Sequential", "config": []}')
    }
    const base = saved === 'model' ? root.create_group('model_weights') : root
    // Layers without weights are listed too.
    const order = weights.flatMap(({ layer }) => [layer, `${layer}_activation`])
    base.create_attribute('layer_names', order, null, 'S40')
    for (const { layer, kernel, bias } of weights) {
      const group = base.create_group(layer)
      group.create_attribute('weight_names', [`${layer}_W`, `${layer}_b`], null, 'S40')
      dataset(group, `${layer}_W`, kernel)
      dataset(group, `${layer}_b`, bias)
      base.create_group(`${layer}_activation`).create_attribute('weight_names', [], [0], 'S1')
    }
  }

const keras2 =
  (saved: 'weights' | 'model', backend = 'tensorflow', version = '2.15.0'): Writer =>
  (root, weights) => {
    if (saved === 'model') root.create_attribute('model_config', '{}')
    const base = saved === 'model' ? root.create_group('model_weights') : root
    base.create_attribute('layer_names', [...weights.map(({ layer }) => layer), 'pool'], null, 'S40')
    base.create_attribute('backend', backend, null, 'S10')
    base.create_attribute('keras_version', version, null, 'S6')
    for (const { layer, kernel, bias } of weights) {
      const group = base.create_group(layer)
      group.create_attribute('weight_names', [`${layer}/kernel:0`, `${layer}/bias:0`], null, 'S40')
      const inner = group.create_group(layer)
      dataset(inner, 'kernel:0', kernel)
      dataset(inner, 'bias:0', bias)
    }
    // A layer without weights lists none, and Keras 3 writes that list as one of numbers.
    base.create_group('pool').create_attribute('weight_names', new Float64Array(0), [0], '<d')
  }

const layouts: Record<string, [Writer, 'tensorflow' | 'theano']> = {
  'before Keras 1, Theano order': [
    (root, weights) => {
      root.create_attribute('nb_layers', weights.length, [], '<i')
      weights.forEach(({ kernel, bias }, i) => {
        const group = root.create_group(`layer_${i}`)
        dataset(group, 'param_0', kernel)
        dataset(group, 'param_1', bias)
      })
    },
    'theano',
  ],
  'Keras 1, save_weights, Theano order': [keras1('weights'), 'theano'],
  'Keras 1, save_weights, TensorFlow order': [keras1('weights'), 'tensorflow'],
  'Keras 1, save, Theano order': [keras1('model'), 'theano'],
  'Keras 2, save_weights': [keras2('weights'), 'tensorflow'],
  'Keras 2, save': [keras2('model'), 'tensorflow'],
  'Keras 3, save to .h5': [keras2('model', 'tensorflow', '3.8.0'), 'tensorflow'],
  'Keras 3, save_weights': [
    (root, weights) => {
      const layers = root.create_group('layers')
      weights.forEach(({ kernel, bias }, i) => {
        const vars = layers.create_group(i === 0 ? 'conv2d' : `conv2d_${i}`).create_group('vars')
        dataset(vars, '0', kernel)
        dataset(vars, '1', bias)
      })
      layers.create_group('activation').create_group('vars')
      root.create_group('optimizer').create_group('vars')
    },
    'tensorflow',
  ],
}

function write(name: string, writer: Writer, weights: Weight[]): string {
  const file = path.join(folder, name)
  const root = new File(file, 'w')
  writer(root, weights)
  root.close()
  return file
}

const bits = (values: Float32Array) => new Uint32Array(values.buffer, values.byteOffset, values.length)

describe('#readWeights of Keras', () => {
  it.each(Object.entries(layouts))('reads %s', async (name, [writer, order]) => {
    const file = await readWeights(write('layout.h5', writer, weightsOf(order)))
    const matched = matchWeights(file, model)
    expect(bits(matched.parameters)).toEqual(bits(parameters))
    expect(matched.order).toBe(order === 'theano' ? 'oihw-turned' : 'hwio')
    expect(matched.table).toHaveLength(9)
    expect(matched.anew).toEqual([])
    expect(file.format.slice(0, 7)).toBe(name.startsWith('before') ? 'Keras b' : name.slice(0, 7))
  })

  it('turns the kernels of a Keras 2 file of the Theano backend', async () => {
    const weights = weightsOf()
    const file = await readWeights(write('turned.h5', keras2('weights', 'theano'), weights))
    const { parameters: read, order } = matchWeights(file, model)
    expect(order).toBe('hwio-turned')
    const [height, width, input, output] = views[0].shape
    const at = (y: number, x: number) => ((y * width + x) * input + 1) * output + 2
    expect(read[at(0, 1)]).toBe(parameters[at(height - 1, width - 2)])
    expect(matchWeights(file, model, { order: 'hwio' }).parameters).toEqual(parameters)
  })

  it('takes layers by number, not by letter', async () => {
    const layers = Array.from({ length: 12 }, (_, i) => ({
      kind: 'conv2d' as const,
      name: `c${i}`,
      filters: 2,
      kernel: [1, 1] as [number, number],
      stride: [1, 1] as [number, number],
      padding: 'same' as const,
    }))
    const deep: ModelSpec = {
      name: 'deep',
      input: [8, 8, 2],
      layers: [...layers, { kind: 'globalAveragePool' }],
      head: 'softmax',
      classes: 2,
    }
    const values = initialise(deep, 'heUniform', 1)
    const file = path.join(folder, 'deep.weights.h5')
    await writeWeights(file, values, { model: deep })
    expect(matchWeights(await readWeights(file), deep).parameters).toEqual(values)
  })
})

describe('#writeWeights', () => {
  const names = ['a.safetensors', 'a.json', 'a.h5', 'a.weights.h5']
  const network = { model, classes: ['a', 'b'], preprocessing: { kind: 'gcn' as const, scale: 55 } }

  it.each(names)('keeps every bit and the network through %s', async (name) => {
    const file = path.join(folder, name)
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(parameters.length - 1), fc.integer({ min: 0, max: 0xffff_ffff })), {
          maxLength: 20,
        }),
        async (changes) => {
          const values = parameters.slice()
          // Any bits at all: infinities, NaN of every kind, denormals, -0.
          for (const [at, pattern] of changes) bits(values)[at] = pattern
          await writeWeights(file, values, network)
          const read = await readWeights(file)
          expect(bits(matchWeights(read, model).parameters)).toEqual(bits(values))
          expect(read.network).toEqual(network)
        },
      ),
      { numRuns: 15 },
    )
  })

  it('cuts model.json into shards', async () => {
    const large = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })
    const values = initialise(large, 'heUniform', 1)
    const written = await writeWeights(path.join(folder, 'large.json'), values, { model: large })
    expect(written).toHaveLength(3)
    const read = matchWeights(await readWeights(written[2]), large).parameters
    expect(Buffer.from(read.buffer).equals(Buffer.from(values.buffer))).toBe(true)
  })

  it('refuses a name that says no format', async () => {
    await expect(writeWeights(path.join(folder, 'a.txt'), parameters, network)).rejects.toMatchObject({
      code: 'E_USAGE',
    })
  })
})

describe('what does not fit', () => {
  const misshapen = (change: (weights: Weight[]) => Weight[]) =>
    readWeights(write('misfit.h5', keras2('weights'), change(weightsOf())))

  it('names a misshapen layer and both shapes', async () => {
    const file = await misshapen((weights) => {
      weights[3].kernel = { shape: [3, 3, 6, 11], values: new Float32Array(3 * 3 * 6 * 11) }
      return weights
    })
    expect(() => matchWeights(file, model)).toThrow(
      expect.objectContaining({
        code: 'E_WEIGHTS_FIT',
        message: 'conv4/kernel is 3×3×6×12 in the model; in the file conv4/kernel:0 of conv4 is 3×3×6×11',
      }),
    )
  })

  it('names a bias of another length', async () => {
    const file = await misshapen((weights) => {
      weights[0].bias = { shape: [5], values: new Float32Array(5) }
      return weights
    })
    expect(() => matchWeights(file, model)).toThrow(/conv1\/bias is 6 in the model; .* is 5/)
  })

  it('names the first layer that is missing, and one too many', async () => {
    const fewer = await misshapen((weights) => weights.slice(0, 7))
    const without = await misshapen((weights) => weights.filter(({ layer }) => layer !== 'conv4'))
    expect(() => matchWeights(without, model)).toThrow(
      /conv4\/kernel is 3×3×6×12 .* conv5\/kernel:0 of conv5 is 3×3×12×12; the file has 8 layers .*, the model 9/,
    )
    expect(() => matchWeights(fewer, model)).toThrow(/conv8\/kernel .* the file ends after 7 of 9 layers/)
    const more = await misshapen((weights) => [...weights, { ...weights[8], layer: 'extra' }])
    expect(() => matchWeights(more, model)).toThrow(/one more layer, extra \(1×1×12×10\)/)
  })

  it('takes another number of classes only where the last layer may be new', async () => {
    const three = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 3, width: 0.0625 })
    const file = await misshapen((weights) => weights)
    expect(() => matchWeights(file, three)).toThrow(/conv9\/kernel is 1×1×12×3 in the model/)
    const { parameters: kept, anew, table } = matchWeights(file, three, { newHead: true })
    expect(anew.map(({ name }) => name)).toEqual(['conv9/kernel', 'conv9/bias'])
    expect(table.at(-1)).toMatchObject({ layer: 'conv9', from: undefined })
    const { offset } = anew[0]
    expect(kept.subarray(0, offset)).toEqual(parameters.subarray(0, offset))
    expect(kept.subarray(offset).every((value) => value === 0)).toBe(true)
  })

  it('refuses weights of another model', async () => {
    const other = buildModel('all-cnn-a', { input: [32, 32, 3], classes: 10, width: 0.0625 })
    const file = await misshapen((weights) => weights)
    expect(() => matchWeights(file, other, { newHead: true })).toThrow(
      expect.objectContaining({ code: 'E_WEIGHTS_FIT' }),
    )
  })
})

describe('#requireFinite', () => {
  it('names the first layer of weights that are NaN or infinite', () => {
    expect(() => requireFinite(parameters, model, 'a.h5')).not.toThrow()
    const broken = parameters.slice()
    broken[views[2].offset] = NaN
    broken[views[9].offset] = -Infinity
    expect(() => requireFinite(broken, model, 'a.h5')).toThrow(
      expect.objectContaining({
        code: 'E_WEIGHTS_FILE',
        message: expect.stringContaining(
          `a.h5: 2 of ${parameters.length} weights are NaN or infinite, the first in conv2/kernel`,
        ) as string,
      }),
    )
  })
})

describe('what cannot be read', () => {
  const refused = { code: 'E_WEIGHTS_FILE' }

  it('refuses a file that is not there, and one of no known format', async () => {
    await expect(readWeights(path.join(folder, 'none.h5'))).rejects.toMatchObject(refused)
    const text = path.join(folder, 'text.h5')
    writeFileSync(text, 'not HDF5 at all')
    await expect(readWeights(text)).rejects.toMatchObject({
      ...refused,
      message: expect.stringContaining('neither HDF5') as string,
    })
  })

  it.each(['a.h5', 'a.weights.h5', 'a.safetensors'])('refuses %s cut off anywhere', async (name) => {
    const whole = path.join(folder, name)
    await writeWeights(whole, parameters, { model })
    const bytes = readFileSync(whole)
    const cut = path.join(folder, `cut-${name}`)
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: bytes.length - 1 }), async (length) => {
        writeFileSync(cut, bytes.subarray(0, length))
        await expect(readWeights(cut)).rejects.toMatchObject(refused)
      }),
      { numRuns: 20 },
    )
  })

  it('refuses safetensors with a wrong header length, and bytes that belong to no tensor', async () => {
    const whole = path.join(folder, 'header.safetensors')
    await writeWeights(whole, parameters, { model })
    const bytes = readFileSync(whole)
    const length = bytes.readBigUInt64LE(0)
    const wrong = path.join(folder, 'wrong.safetensors')
    for (const other of [0n, length - 40n, length + 8n, length + 4_000n, 2n ** 50n, 2n ** 64n - 1n]) {
      const changed = Buffer.from(bytes)
      changed.writeBigUInt64LE(other, 0)
      writeFileSync(wrong, changed)
      await expect(readWeights(wrong), `a header of ${other} bytes`).rejects.toMatchObject(refused)
    }
    writeFileSync(wrong, Buffer.concat([bytes, Buffer.alloc(8)]))
    await expect(readWeights(wrong)).rejects.toMatchObject({
      message: expect.stringMatching(/of which its header names/) as string,
    })
  })

  it('refuses an archive that is not one of Keras, or torn', async () => {
    const file = path.join(folder, 'a.keras')
    // An empty archive is its end record alone; this one has lost that.
    writeFileSync(file, Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), Buffer.alloc(30)]))
    await expect(readWeights(file)).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(/a\.keras: it cannot be unpacked/) as string,
    })
  })

  it('refuses a model.json with a short or missing shard, or one from elsewhere', async () => {
    const file = path.join(folder, 'b.json')
    const [shard] = await writeWeights(file, parameters, { model })
    const json = readFileSync(file, 'utf8')
    truncateSync(shard, 1000)
    await expect(readWeights(file)).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(/cut off/) as string,
    })
    rmSync(shard)
    await expect(readWeights(file)).rejects.toMatchObject(refused)
    writeFileSync(file, json.replace('"b.shard', '"../b.shard'))
    await expect(readWeights(file)).rejects.toMatchObject({
      message: expect.stringMatching(/not beside it/) as string,
    })
  })

  it('refuses an HDF5 file without layers of Keras, and one that lists what is not there; takes doubles', async () => {
    const bare = write('bare.h5', () => {}, [])
    await expect(readWeights(bare)).rejects.toMatchObject(refused)
    const hollow = write('hollow.h5', (root) => root.create_attribute('layer_names', ['conv1']), [])
    await expect(readWeights(hollow)).rejects.toMatchObject({
      message: expect.stringMatching(/conv1 is listed/) as string,
    })
    const doubles = write(
      'doubles.h5',
      (root) => {
        root.create_attribute('nb_layers', 1, [], '<i')
        root
          .create_group('layer_0')
          .create_dataset({ name: 'param_0', data: new Float64Array(4), shape: [2, 2] })
      },
      [],
    )
    expect((await readWeights(doubles)).layers[0].tensors[0].kind).toBe('float64')
  })
})
