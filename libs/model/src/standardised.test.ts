import { describe, expect, it } from 'vitest'
import { buildModel, freeze, standardisedKernels } from './index.ts'

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })

describe('#standardisedKernels', () => {
  it('are all but the last, the first without the constant of a ReLU', () => {
    const kernels = standardisedKernels(model)
    expect(kernels.map(({ name }) => name)).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((n) => `conv${n}/kernel`))
    expect(kernels[0]).toEqual({ name: 'conv1/kernel', offset: 0, size: 2592, filters: 96, scale: 1 })
    expect(kernels[3]).toMatchObject({ offset: 168_768, size: 165_888, filters: 192 })
    for (const { scale } of kernels.slice(1)) expect(scale).toBeCloseTo(1.7129, 4)
  })

  it('are placed as the gradients of the trained layers are', () => {
    const [first, second] = standardisedKernels(freeze(model, 'conv1, conv2, conv4'))
    expect(first).toMatchObject({ name: 'conv3/kernel', offset: 0 })
    expect(second).toMatchObject({ name: 'conv5/kernel', offset: 83_040 })
    expect(standardisedKernels(freeze(model, 'all-but-1'))).toEqual([])
  })

  it('look through dropout and pooling for the ReLU', () => {
    const pooled = buildModel('base-c', { input: [32, 32, 3], classes: 10, inputDropout: 0.2 })
    expect(standardisedKernels(pooled).map(({ scale }) => scale > 1)).toEqual([
      false,
      ...new Array<boolean>(5).fill(true),
    ])
  })
})
