import { describe, expect, it } from 'vitest'
import { buildModel, freeze, muonKernels, trainedLayout } from './index.ts'

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.125 })

describe('#muonKernels', () => {
  it('has every kernel; the first is not centred, the last neither centred nor held', () => {
    const kernels = muonKernels(model)
    const views = trainedLayout(model).views.filter(({ role }) => role === 'kernel')
    expect(kernels.map(({ offset }) => offset)).toEqual(views.map(({ offset }) => offset))
    kernels.forEach(({ size, filters }, i) => {
      expect(size).toBe(views[i].size)
      expect(filters).toBe(views[i].shape[3])
    })
    expect(kernels.map(({ held }) => held)).toEqual([...new Array<boolean>(8).fill(true), false])
    expect(kernels.map(({ centred }) => centred)).toEqual([
      ...[false, ...new Array<boolean>(7).fill(true)],
      false,
    ])
    expect(kernels.map(({ scale }) => scale)).toEqual([1, ...new Array<number>(7).fill(1.25), 1])
    expect(kernels.every(({ rate }) => rate === 1)).toBe(true)
  })

  it('leaves a whitened first layer as it is, and knows first and last where some are frozen', () => {
    const options = { whitened: true, lastRate: 0.4 }
    const kernels = muonKernels(model, options)
    expect(kernels.map(({ rate }) => rate)).toEqual([0, ...new Array<number>(7).fill(1), 0.4])
    expect(kernels[0].held).toBe(false)
    const partly = muonKernels(freeze(model, 'conv1, conv2, conv4'), options)
    expect(partly[0]).toMatchObject({ name: 'conv3/kernel', offset: 0, rate: 1, centred: true, held: true })
    expect(partly.map(({ scale }) => scale)).toEqual([1.25, 1.25, 1.25, 1.25, 1.25, 1])
    expect(partly.at(-1)).toMatchObject({ rate: 0.4, held: false })
  })

  it('holds no norm where weights were given', () => {
    expect(muonKernels(model, { held: false }).some(({ held }) => held)).toBe(false)
  })
})
