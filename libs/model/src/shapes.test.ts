import { describe, expect, it } from 'vitest'
import { initialise } from './initialisation.ts'
import { checkModel, parameterLayout } from './layout.ts'
import { argmax, crossEntropy, probabilities } from './loss.ts'
import { outputShapes, slide } from './shapes.ts'
import type { ModelSpec } from './spec.ts'
import { buildModel } from './zoo.ts'

describe('slide', () => {
  // TensorFlow's notes on padding (tf.nn, "Notes on padding").
  it.each([
    [13, 6, 5, 'valid', { output: 2, before: 0, after: 0 }],
    [13, 6, 5, 'same', { output: 3, before: 1, after: 2 }],
    [32, 3, 2, 'same', { output: 16, before: 0, after: 1 }],
    [32, 3, 1, 'same', { output: 32, before: 1, after: 1 }],
    [5, 3, 2, 'same', { output: 3, before: 1, after: 1 }],
    [5, 1, 1, 'valid', { output: 5, before: 0, after: 0 }],
    // PyTorch's padding=1 and 2: floor((input + 2·padding - window) / stride) + 1; the zero after is not always reached.
    [32, 3, 2, [1, 1], { output: 16, before: 1, after: 0 }],
    [33, 3, 2, [1, 1], { output: 17, before: 1, after: 1 }],
    [32, 5, 1, [2, 2], { output: 32, before: 2, after: 2 }],
    [12, 5, 1, [4, 0], { output: 12, before: 4, after: 0 }],
    [4, 3, 4, [0, 2], { output: 1, before: 0, after: 0 }],
  ] as const)('of %i by a window of %i and stride %i, %s', (input, window, stride, padding, expected) =>
    expect(slide(input, window, stride, padding)).toEqual(expected),
  )
})

const base: ModelSpec = {
  name: 'm',
  input: [8, 8, 3],
  layers: [
    { kind: 'conv2d', name: 'a', filters: 4, kernel: [3, 3], stride: [1, 1], padding: 'valid' },
    { kind: 'maxPool', size: [2, 2], stride: [2, 2], padding: 'same' },
    { kind: 'conv2d', name: 'b', filters: 10, kernel: [1, 1], stride: [1, 1], padding: 'same' },
    { kind: 'globalAveragePool' },
  ],
  head: 'softmax',
  classes: 10,
}

describe('a model', () => {
  it('has the shapes and the layout that its layers say', () => {
    expect(outputShapes(base)).toEqual([
      [6, 6, 4],
      [3, 3, 4],
      [3, 3, 10],
      [1, 1, 10],
    ])
    const { size, views } = parameterLayout(base)
    expect(views.map(({ name, shape, offset }) => [name, shape.join('×'), offset])).toEqual([
      ['a/kernel', '3×3×3×4', 0],
      ['a/bias', '4', 108],
      ['b/kernel', '1×1×4×10', 112],
      ['b/bias', '10', 152],
    ])
    expect(size).toBe(162)
  })

  it('has numbers of zeros where its padding says so', () => {
    const padding = [
      [2, 1],
      [0, 2],
    ]
    const padded = changed((model) => Object.assign(model.layers[0], { padding }))
    expect(outputShapes(checkModel(padded))[0]).toEqual([9, 8, 4])
  })

  const changed = (change: (model: Record<string, never> & ModelSpec) => void) => {
    const model = structuredClone(base)
    change(model as never)
    return model
  }
  it.each([
    ['no object', null],
    ['the wrong number of classes', changed((model) => (model.classes = 9))],
    ['two layers of one name', changed((model) => Object.assign(model.layers[2], { name: 'a' }))],
    ['an unknown layer', changed((model) => Object.assign(model.layers[1], { kind: 'attention' }))],
    ['a negative stride', changed((model) => Object.assign(model.layers[0], { stride: [-1, 1] }))],
    [
      'a window larger than its input',
      changed((model) => Object.assign(model.layers[0], { kernel: [9, 9] })),
    ],
    [
      'so many zeros that a window sees nothing else',
      changed((model) =>
        Object.assign(model.layers[0], {
          padding: [
            [3, 0],
            [0, 0],
          ],
        }),
      ),
    ],
    [
      'zeros below none',
      changed((model) =>
        Object.assign(model.layers[0], {
          padding: [
            [-1, 0],
            [0, 0],
          ],
        }),
      ),
    ],
    ['an unknown key', changed((model) => Object.assign(model.layers[0], { dilation: 2 }))],
    ['a dropout rate of 1', changed((model) => model.layers.unshift({ kind: 'dropout', rate: 1 }))],
    [
      'no convolution',
      changed((model) => Object.assign(model, { layers: [{ kind: 'relu' }], classes: 192 })),
    ],
  ])('with %s is refused with E_MODEL', (_, model) =>
    expect(() => checkModel(model)).toThrowError(expect.objectContaining({ code: 'E_MODEL' })),
  )
})

describe('initialise', () => {
  const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.5 })
  const { views } = parameterLayout(model)

  it.each([
    ['heUniform', (fanIn: number) => 2 / fanIn],
    ['heNormal', (fanIn: number) => 2 / fanIn],
    ['glorotUniform', (fanIn: number, fanOut: number) => 2 / (fanIn + fanOut)],
  ] as const)('%s has its variance, and biases of 0', (scheme, variance) => {
    const parameters = initialise(model, scheme, 7)
    for (const { role, shape, offset, size } of views) {
      const values = parameters.subarray(offset, offset + size)
      if (role === 'bias') {
        expect(values.every((value) => value === 0)).toBe(true)
        continue
      }
      const area = shape[0] * shape[1]
      const found = values.reduce((sum, value) => sum + value * value, 0) / size
      if (size > 1_000) expect(found / variance(area * shape[2], area * shape[3])).toBeCloseTo(1, 1)
      if (scheme === 'heUniform') {
        const limit = Math.sqrt(6 / (area * shape[2]))
        expect(values.every((value) => Math.abs(value) <= limit)).toBe(true)
      }
    }
  })

  it('is the seed, bit for bit', () => {
    expect(initialise(model, 'heUniform', 1)).toEqual(initialise(model, 'heUniform', 1))
    expect(initialise(model, 'heUniform', 1)).not.toEqual(initialise(model, 'heUniform', 2))
    expect(initialise(model, 'zeros', 1).every((value) => value === 0)).toBe(true)
  })
})

describe('the heads', () => {
  it('are the textbook formulas', () => {
    const z = [0.3, -1.2, 2.5]
    const powers = z.map(Math.exp)
    const sum = powers.reduce((a, b) => a + b)
    expect(crossEntropy('softmax', z, 0, 3, 1)).toBeCloseTo(-Math.log(powers[1] / sum), 12)
    const p = z.map((value) => 1 / (1 + Math.exp(-value)))
    expect(crossEntropy('sigmoid', z, 0, 3, 1)).toBeCloseTo(
      -Math.log(1 - p[0]) - Math.log(p[1]) - Math.log(1 - p[2]),
      12,
    )
    expect(probabilities('softmax', z, 0, 3).reduce((a, b) => a + b)).toBeCloseTo(1, 12)
    expect(probabilities('sigmoid', z, 0, 3)).toEqual(p)
    expect(argmax([1, 3, 3], 0, 3)).toBe(1)
  })

  it('do not overflow', () => {
    expect(crossEntropy('softmax', [1000, -1000], 0, 2, 1)).toBe(2000)
    expect(crossEntropy('sigmoid', [1000, -1000], 0, 2, 1)).toBe(2000)
  })
})
