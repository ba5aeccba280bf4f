import { Arena } from '@convoy/arena'
import { describe, expect, it } from 'vitest'
import { MovingAverage } from './average.ts'

describe('MovingAverage', () => {
  /** One that follows w = 1, 2, 3, … from w = 0 on. */
  function start(decay: number, every: number) {
    const arena = new Arena(3)
    const average = new MovingAverage(arena, new Float32Array(3), { decay, every })
    const parameters = arena.take()
    let step = 0
    const go = (steps: number) => {
      for (let i = 0; i < steps; i++) {
        parameters.values.fill(++step)
        average.update(parameters, step)
      }
      return average.parameters[2]
    }
    return { average, go }
  }

  it('forgets the start soon', () => {
    const { go } = start(0.99, 1)
    // d = 1/10, 2/11, 3/12 in the first three.
    expect(go(1)).toBeCloseTo(0.9, 6)
    expect(go(1)).toBeCloseTo((0.9 * 2) / 11 + (2 * 9) / 11, 6)
    expect(go(1)).toBeCloseTo((0.9 * 2 + 2 * 9) / 11 / 4 + (3 * 3) / 4, 6)
  })

  it('keeps its decay later', () => {
    const { average, go } = start(0.5, 1)
    go(20)
    const before = average.parameters[0]
    expect(go(1)).toBeCloseTo(0.5 * before + 0.5 * 21, 5)
  })

  it('moves after so many updates each', () => {
    const { go } = start(0.99, 3)
    expect(go(2)).toBe(0)
    expect(go(1)).toBeCloseTo(0.9 * 3, 6)
    expect(go(2)).toBeCloseTo(0.9 * 3, 6)
    expect(go(1)).toBeCloseTo((0.9 * 3 * 2 + 6 * 9) / 11, 6)
  })

  it('goes on from its state to the same bits', () => {
    const [one, other] = [start(0.9, 2), start(0.9, 2)]
    one.go(7)
    other.go(7)
    other.average.restore(new Float32Array(3).fill(5))
    other.average.restore(one.average.parameters)
    one.go(6)
    other.go(6)
    expect(other.average.parameters).toEqual(one.average.parameters)
  })
})
