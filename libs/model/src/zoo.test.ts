import { describe, expect, it } from 'vitest'
import { buildModel, modelNames } from './zoo.ts'
import { parameterLayout } from './layout.ts'
import { multiplyAdds, outputShapes } from './shapes.ts'

const cifar = { input: [32, 32, 3], classes: 10 } as const

describe('buildModel', () => {
  it('gives All-CNN-C its 1,369,738 parameters and 281 M multiply-adds', () => {
    const model = buildModel('all-cnn-c', cifar)
    expect(parameterLayout(model).size).toBe(1_369_738)
    expect(Math.round(multiplyAdds(model) / 1e6)).toBe(281)
  })

  it('follows the Keras listing layer by layer', () => {
    const model = buildModel('all-cnn-c', cifar)
    const words = model.layers.map((layer) =>
      layer.kind === 'conv2d' ? `${layer.filters}/${layer.kernel[0]}/${layer.stride[0]}` : layer.kind,
    )
    expect(words.join(' ')).toBe(
      '96/3/1 relu 96/3/1 relu 96/3/2 relu dropout 192/3/1 relu 192/3/1 relu 192/3/2 relu dropout ' +
        '192/3/1 relu 192/1/1 relu 10/1/1 globalAveragePool',
    )
    expect(outputShapes(model).at(-2)).toEqual([8, 8, 10])
  })

  it('builds all twelve networks of the paper, each ending in the classes', () => {
    expect(modelNames).toHaveLength(12)
    for (const name of modelNames) expect(outputShapes(buildModel(name, cifar)).at(-1)).toEqual([1, 1, 10])
  })

  it('puts the input dropout first and scales every layer but the last by width', () => {
    const model = buildModel('all-cnn-c', { ...cifar, inputDropout: 0.2, width: 0.25 })
    expect(model.layers[0]).toEqual({ kind: 'dropout', rate: 0.2 })
    expect(parameterLayout(model).views.map((view) => view.shape.at(-1))).toEqual(
      [24, 24, 24, 48, 48, 48, 48, 48, 10].flatMap((filters) => [filters, filters]),
    )
  })

  it('refuses a name it does not know with E_MODEL', () => {
    expect(() => buildModel('resnet-50', cifar)).toThrowError(expect.objectContaining({ code: 'E_MODEL' }))
  })
})
