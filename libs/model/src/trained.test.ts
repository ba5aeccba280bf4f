import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { freeze, parameterLayout } from './layout.ts'
import { TrainedParameters } from './trained.ts'
import { buildModel } from './zoo.ts'

const model = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.03125 })
const all = Float32Array.from({ length: parameterLayout(model).size }, (_, i) => i + 1)
const layers = Array.from({ length: 9 }, (_, i) => `conv${i + 1}`)
/** The model with any layers frozen, but not all. */
const frozen = fc.subarray(layers, { maxLength: layers.length - 1 }).map((names) => {
  return names.length === 0 ? model : freeze(model, names.join(','))
})

describe('TrainedParameters', () => {
  it('are as many as there are where no layer is frozen', () => {
    const trained = new TrainedParameters(model)
    expect(trained.partial).toBe(false)
    expect(trained.gather(all)).toEqual(all)
    expect(trained.spread(all)).toBe(all)
  })

  it('are put back part by part into the places that they came from; up to where is told all is in place', () => {
    fc.assert(
      fc.property(frozen, fc.integer({ min: 1, max: 700 }), (partly, part) => {
        const trained = new TrainedParameters(partly)
        const numbers = trained.gather(all)
        expect(numbers).toHaveLength(trained.size)
        // Frozen parameters are in place from the beginning.
        const spread = trained.spread(numbers)
        const target = all.map((value, i) => (spread[i] === 0 ? value : -1))
        let complete = 0
        for (let first = 0; first < numbers.length; first += part) {
          const end = Math.min(first + part, numbers.length)
          complete = trained.scatter(numbers, first, end, target)
          expect(target.subarray(0, complete)).toEqual(all.subarray(0, complete))
        }
        expect(complete).toBe(all.length)
        expect(spread.filter((value) => value !== 0)).toEqual(numbers)
      }),
      { numRuns: 30 },
    )
  })
})
