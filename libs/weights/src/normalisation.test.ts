import { describe, expect, it } from 'vitest'
import type { StoredLayer, StoredTensor, WeightsFile } from './file.ts'
import { convolutionsOf } from './normalisation.ts'

const tensor = (name: string, shape: number[], first = 1): StoredTensor => {
  const size = shape.reduce((product, n) => product * n, 1)
  return {
    name,
    shape,
    kind: 'float32',
    values: Float32Array.from({ length: size }, (_, i) => first + i / 8),
  }
}
const convolution = (name: string, outputs: number, inputs: number, bias = true): StoredLayer => ({
  name,
  tensors: [
    tensor(`${name}.weight`, [outputs, inputs, 3, 3], -1),
    ...(bias ? [tensor(`${name}.bias`, [outputs])] : []),
  ],
})
const norm = (name: string, size: number): StoredLayer => ({
  name,
  tensors: [
    tensor(`${name}.weight`, [size], 2),
    tensor(`${name}.bias`, [size], -3),
    tensor(`${name}.running_mean`, [size], 0.5),
    tensor(`${name}.running_var`, [size], 0.25),
    { name: `${name}.num_batches_tracked`, shape: [], kind: 'int64', values: undefined },
  ],
})
const fileOf = (...layers: StoredLayer[]): WeightsFile => ({
  format: 'PyTorch state dict',
  layers,
  turned: 'no',
})

describe('#convolutionsOf', () => {
  it.each([true, false])('folds a batch norm into the convolution before it, with a bias: %s', (bias) => {
    const file = fileOf(convolution('0', 4, 3, bias), norm('1', 4), convolution('3', 5, 4))
    const { layers, notes } = convolutionsOf(file)
    expect(layers.map(({ name }) => name)).toEqual(['0', '3'])
    const [kernel, biases] = layers[0].tensors.map(({ values }) => values!)
    for (let c = 0; c < 4; c++) {
      const factor = (2 + c / 8) / Math.sqrt(0.25 + c / 8 + 1e-5)
      expect(kernel[c * 27 + 5]).toBeCloseTo((-1 + (c * 27 + 5) / 8) * factor, 4)
      expect(biases[c]).toBeCloseTo(((bias ? 1 + c / 8 : 0) - (0.5 + c / 8)) * factor - 3 + c / 8, 4)
    }
    expect(notes.join()).toMatch(/1 batch norms folded .* \(0; ε 0.00001\), taken to stand before the ReLU/)
    expect(notes.join()).not.toMatch(/num_batches_tracked/)
  })

  it('finds the convolution of a batch norm by its number where names are sorted', () => {
    const file = fileOf(
      norm('bn1', 4),
      norm('bn2', 5),
      convolution('conv1', 4, 3),
      convolution('conv2', 5, 4),
    )
    expect(convolutionsOf(file).layers.map(({ name }) => name)).toEqual(['conv1', 'conv2'])
  })

  it.each([
    ['first', fileOf(norm('0', 3), convolution('1', 4, 3))],
    ['of other channels', fileOf(convolution('0', 4, 3), norm('1', 5))],
    ['behind another', fileOf(convolution('0', 4, 3), norm('1', 4), norm('2', 4))],
  ])('refuses a batch norm that cannot be folded, by its name: %s', (_, file) => {
    expect(() => convolutionsOf(file)).toThrow(
      expect.objectContaining({
        code: 'E_WEIGHTS_FIT',
        message: expect.stringMatching(/^[0-2] is a batch norm/) as string,
      }),
    )
  })

  it('refuses one behind an activation, where the file says so', () => {
    const layers = [
      { name: '0', what: 'conv2d 3×3 stride 1×1 same' },
      { name: '0', what: 'relu' },
      { name: '1', what: 'batchNorm' },
    ]
    const file = { ...fileOf(convolution('0', 4, 3), norm('1', 4)), described: { layers, epsilons: {} } }
    expect(() => convolutionsOf(file)).toThrow(/1 is a batch norm of 4 channels that follows relu/)
  })

  it('passes whole numbers over and says so, and takes 0 for a bias that is missing', () => {
    const seed: StoredLayer = {
      name: 'x',
      tensors: [{ name: 'x.seed', shape: [2], kind: 'int64', values: undefined }],
    }
    const { layers, notes } = convolutionsOf(fileOf(seed, convolution('0', 4, 3, false)))
    expect(layers[0].tensors[1].values).toEqual(new Float32Array(4))
    expect(notes).toEqual(['passed over: x.seed (int64 2)', 'without bias, which is 0 then: 0'])
  })
})
