import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { trainingSchema } from '../config.ts'
import { lengthOf } from './schedule.ts'
import { Sizes } from './sizes.ts'

const shape = [32, 32, 3] as const
/** 28 updates of 410 images. */
function start(sizes?: string, options: object = {}) {
  const config = trainingSchema.parse({ batchSize: 64, microBatch: 8, epochs: 4, sizes, ...options })
  const length = lengthOf(config, 410)
  return { length, sizes: new Sizes(config, { shape }, length) }
}

describe('Sizes', () => {
  it('are those of the stored images where none are given', () => {
    const { sizes } = start()
    for (const step of [0, 13, 27])
      expect(sizes.at(step)).toEqual({ size: undefined, microBatch: 8, leaf: 8, cost: 1 })
    expect(sizes.smaller).toEqual([])
    expect(sizes.work()).toBe(4)
    expect(sizes.work(7)).toBe(1)
  })

  it('have leaves that hold more of smaller images, and cost as much as their area', () => {
    const { sizes } = start('16:0.4,24:0.3,32')
    expect([0, 11, 12, 19, 20, 27].map((step) => sizes.at(step).size)).toEqual([
      ...[16, 16, 24, 24, undefined, undefined],
    ])
    // Four leaves of a batch of 64 are the fewest; an image of 24×24 is more than half of a full one.
    expect(sizes.at(0)).toEqual({ size: 16, microBatch: 16, leaf: 16, cost: 0.25 })
    expect(sizes.at(12)).toEqual({ size: 24, microBatch: 8, leaf: 8, cost: 0.5625 })
    expect(sizes.smaller).toEqual([
      { size: 16, microBatch: 16 },
      { size: 24, microBatch: 8 },
    ])
  })

  it('announce a size that comes again once', () => {
    const { sizes } = start('16:0.2,32:0.2,16:0.2,32')
    expect(sizes.smaller).toEqual([{ size: 16, microBatch: 16 }])
  })

  it('make nothing anew in a step', () => {
    const { sizes } = start('16:0.4,32')
    expect(sizes.at(1)).toBe(sizes.at(0))
    expect(sizes.at(27)).toBe(sizes.at(26))
  })

  it('cost up to a step what its images cost, one by one', () => {
    const share = fc.integer({ min: 1, max: 49 })
    fc.assert(
      fc.property(share, share, fc.integer({ min: 1, max: 9 }), fc.nat(63), (first, second, epochs, step) => {
        const text = `12:0.${String(first).padStart(2, '0')},24:0.${String(second).padStart(2, '0')},32`
        const { sizes, length } = start(text, { epochs })
        const until = Math.min(step, length.totalSteps)
        let sum = 0
        for (let i = 0; i < until; i++) sum += sizes.at(i).cost
        expect(sizes.work(until)).toBeCloseTo(sum / length.stepsPerEpoch, 9)
      }),
    )
  })

  it('are refused with E_USAGE where they are not possible', () => {
    expect(() => start('18:0.4,32')).toThrowError(expect.objectContaining({ code: 'E_USAGE' }))
    expect(() => start('16:0.4,32', { preprocessing: 'zca' })).toThrowError(/ZCA/)
  })
})
