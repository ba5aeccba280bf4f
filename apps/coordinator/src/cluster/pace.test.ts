import { describe, expect, it } from 'vitest'
import { median, Pace } from './pace.ts'

describe('Pace', () => {
  it('knows nothing before a first time', () => {
    const pace = new Pace()
    expect(pace.deadline(10)).toBeUndefined()
    expect(pace.expected(10)).toBeUndefined()
    expect(pace.rate(7)).toBe(7)
  })

  it('is the median: one slow answer changes nothing', () => {
    const pace = new Pace()
    for (const seconds of [1, 1, 1, 1, 60]) pace.add(100, seconds)
    expect(pace.rate(0)).toBeCloseTo(100)
    expect(pace.expected(50)).toBeCloseTo(0.5)
  })

  it('waits longer for a worker whose times spread', () => {
    const steady = new Pace()
    const uneven = new Pace()
    for (const seconds of [1, 1, 1, 1, 1]) steady.add(100, seconds)
    for (const seconds of [0.5, 0.7, 1, 1.5, 1.9]) uneven.add(100, seconds)
    expect(uneven.deadline(100)!).toBeGreaterThan(steady.deadline(100)!)
    expect(steady.deadline(100)!).toBeGreaterThan(1)
  })

  it('forgets, so that a worker that changed its speed is known by the new one', () => {
    const pace = new Pace()
    for (let i = 0; i < 15; i++) pace.add(100, 10)
    for (let i = 0; i < 15; i++) pace.add(100, 1)
    expect(pace.rate(0)).toBeCloseTo(100)
  })
})

describe("Pace's speed", () => {
  it('tells engine from link, whatever a worker says', () => {
    const pace = new Pace()
    expect(pace.speed).toBeUndefined()
    for (const [seconds, engine] of [
      [5, 1],
      [4, 1],
      [1, 9],
    ])
      pace.addFirst(10, seconds, engine)
    expect(pace.speed).toEqual({ sample: 0.1, frame: 1.5 })
  })

  it('is not known where engines take no time', () => {
    const pace = new Pace()
    pace.addFirst(10, 3, 0)
    expect(pace.speed).toBeUndefined()
  })
})

describe('median', () => {
  it('is the middle, and the upper of two middles', () => {
    expect(median([3, 1, 2])).toBe(2)
    expect(median([4, 1, 2, 3])).toBe(3)
  })
})
