import { describe, expect, it } from 'vitest'
import {
  buildModel,
  checkModel,
  freeze,
  gradientCut,
  parameterLayout,
  trainedLayout,
  trainedRanges,
} from './index.ts'

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })

describe('#trainedLayout', () => {
  it('is the layout of the parameters where nothing is frozen', () => {
    expect(trainedLayout(model)).toEqual(parameterLayout(model))
    expect(trainedRanges(model)).toEqual([{ parameter: 0, gradient: 0, size: parameterLayout(model).size }])
  })

  it('has the last layers in one stretch where the first are frozen', () => {
    const partly = freeze(model, 'all-but-2')
    const { size } = trainedLayout(partly)
    expect(size).toBe(192 * 192 + 192 + 192 * 10 + 10)
    expect(trainedLayout(partly).views.map(({ name }) => name)).toEqual([
      'conv8/kernel',
      'conv8/bias',
      'conv9/kernel',
      'conv9/bias',
    ])
    expect(trainedRanges(partly)).toEqual([
      { parameter: parameterLayout(model).size - size, gradient: 0, size },
    ])
  })

  it('has the rest in their order where layers between are frozen', () => {
    const partly = freeze(model, 'conv2, conv4')
    const ranges = trainedRanges(partly)
    expect(ranges).toHaveLength(3)
    expect(ranges.reduce((sum, { size }) => sum + size, 0)).toBe(trainedLayout(partly).size)
    expect(ranges[1].gradient).toBe(ranges[0].size)
    expect(checkModel(JSON.parse(JSON.stringify(partly)))).toEqual(partly)
  })
})

describe('#gradientCut', () => {
  it('is before conv4 of All-CNN-C, with seven eighths behind it, and nowhere with frozen layers', () => {
    const { size, views } = parameterLayout(model)
    const cut = gradientCut(model)
    expect(views.find(({ offset }) => offset === cut)?.name).toBe('conv4/kernel')
    expect(cut / size).toBeCloseTo(1 / 8, 2)
    expect(gradientCut(freeze(model, 'conv1'))).toBe(0)
  })
})

describe('#freeze', () => {
  it.each(['conv10', 'all-but-0', '', 'all-but-x', 'conv1,conv2,conv3,conv4,conv5,conv6,conv7,conv8,conv9'])(
    'refuses %j',
    (which) => {
      expect(() => freeze(model, which)).toThrow(expect.objectContaining({ code: 'E_MODEL' }))
    },
  )

  it('freezes nothing where all layers are the last', () => {
    expect(freeze(model, 'all-but-9')).toEqual(model)
  })
})
