import { describe, expect, it } from 'vitest'
import { mannKendall, median, noise, theilSen } from './trend.ts'

const line = Array.from({ length: 20 }, (_, i) => 5 - 0.5 * i)

describe('mannKendall', () => {
  it('is the score of all pairs over its deviation', () => {
    // All 190 pairs fall; the variance is 20·19·45/18 = 950.
    expect(mannKendall(line)).toBeCloseTo(-189 / Math.sqrt(950), 10)
    expect(mannKendall([1, 1, 1, 1])).toBe(0)
  })
})

describe('theilSen', () => {
  it('is the slope, whatever a few outliers are', () => {
    expect(theilSen(line)).toBeCloseTo(-0.5, 10)
    expect(theilSen(line.with(3, 100).with(15, -100))).toBeCloseTo(-0.5, 10)
  })
})

describe('noise', () => {
  it('is not moved by a trend or an outlier', () => {
    const wobble = Array.from({ length: 100 }, (_, i) => Math.sin(i * i))
    const usual = noise(wobble)
    // The deviation of a sine is 1/√2.
    expect(usual).toBeCloseTo(Math.SQRT1_2, 1)
    expect(noise(wobble.map((value, i) => value + 3 * i))).toBeCloseTo(usual, 10)
    expect(noise(wobble.with(50, 1000))).toBeCloseTo(usual, 1)
  })
})

describe('median', () => {
  it('is the middle', () => expect([median([3, 1, 2]), median([4, 1, 2, 3])]).toEqual([2, 2.5]))
})
