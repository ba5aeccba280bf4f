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
    expect(kernels.map(({ scale }) => scale)).toEqual([1, ...new Array<number>(7).fill(1.7), 1])
    expect(kernels.every(({ rate }) => rate === 1)).toBe(true)
  })

  it('knows first and last layer, and scales by layer, where some are frozen', () => {
    const options = { firstRate: 0.5, lastRate: 0.4, scales: [1, 2, 3, 4, 5, 6, 7, 8, 9] }
    const rates = muonKernels(model, options).map(({ rate }) => rate)
    expect(rates).toEqual([0.5, ...new Array<number>(7).fill(1), 0.4])
    const partly = freeze(model, 'conv1, conv2, conv4')
    const kernels = muonKernels(partly, options)
    expect(kernels[0]).toMatchObject({ name: 'conv3/kernel', offset: 0, rate: 1, scale: 3, centred: true })
    expect(kernels.map(({ scale }) => scale)).toEqual([3, 5, 6, 7, 8, 9])
    expect(kernels.at(-1)).toMatchObject({ rate: 0.4, held: false })
  })
})
