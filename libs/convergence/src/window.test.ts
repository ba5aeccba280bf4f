import { describe, expect, it } from 'vitest'
import { Window } from './window.ts'

describe('Window', () => {
  it('is the mean of what there is, and then of the last batches that hold so many samples', () => {
    const window = new Window(4)
    expect(window.add(1, 8, 2)).toBe(8)
    expect(window.add(2, 6, 2)).toBe(7)
    expect(window.add(3, 2, 2)).toBe(4)
    expect(window.add(4, 1, 4)).toBe(1)
  })

  it('weighs batches by their samples', () => {
    const window = new Window(100)
    window.add(1, 1, 3)
    expect(window.add(2, 5, 1)).toBe(2)
  })

  it('takes back the steps that a resumed run does again', () => {
    const window = new Window(4)
    for (const [step, mean] of [1, 2, 30, 40].entries()) window.add(step + 1, mean, 2)
    expect(window.add(3, 4, 2)).toBe(4)
    expect(window.add(4, 6, 2)).toBe(5)
  })

  it('forgets a NaN once it has left', () => {
    const window = new Window(2)
    window.add(1, 1, 1)
    expect(window.add(2, NaN, 1)).toBeNaN()
    expect(window.add(3, 2, 1)).toBeNaN()
    expect(window.add(4, 4, 1)).toBe(3)
  })

  it('stays exact over many batches', () => {
    const window = new Window(10)
    let last = 0
    for (let step = 1; step <= 100_000; step++) last = window.add(step, step % 7, 3)
    expect(last).toBeCloseTo([99_997, 99_998, 99_999, 100_000].reduce((sum, s) => sum + (s % 7), 0) / 4, 12)
  })
})
