import { describe, expect, it } from 'vitest'
import { Curves, type CurvePoint } from './curves.ts'

const point = (value: number): CurvePoint => ({
  cost1000: value,
  cost5000: -value,
  trainAccuracy: NaN,
  learningRate: 0.01,
  imagesPerSecond: 100,
})

function filled(steps: number, capacity?: number): Curves {
  const curves = new Curves(capacity)
  for (let step = 1; step <= steps; step++) curves.push(step, point(step))
  return curves
}

describe('Curves', () => {
  it('gives back every step while there is room', () => {
    const { step, cost1000, cost5000, trainAccuracy } = filled(5).rows(0, Infinity, 100)
    expect(step).toEqual([1, 2, 3, 4, 5])
    expect(cost1000).toEqual([1, 2, 3, 4, 5])
    expect(cost5000).toEqual([-1, -2, -3, -4, -5])
    expect(trainAccuracy).toEqual([null, null, null, null, null])
  })

  it('keeps the smallest and largest value of each bucket, in any number of steps', () => {
    const curves = new Curves(64)
    for (let step = 1; step <= 10_000; step++)
      curves.push(step, point(step === 7_001 ? 99 : step === 42 ? -99 : 1))
    const { step, cost1000 } = curves.rows(0, Infinity, 16)
    expect(step.length).toBeLessThanOrEqual(32)
    expect(step).toEqual([...step].sort((a, b) => a - b))
    expect(step.at(-1)).toBe(10_000)
    expect(Math.max(...cost1000.map(Number))).toBe(99)
    expect(Math.min(...cost1000.map(Number))).toBe(-99)
    expect(step[cost1000.indexOf(99)]).toBeGreaterThan(6_000)
    expect(step[cost1000.indexOf(99)]).toBeLessThan(8_000)
  })

  it('gives a part of the run in finer buckets', () => {
    const { step } = filled(1_000).rows(501, 600, 200)
    expect(step).toEqual(Array.from({ length: 100 }, (_, i) => 501 + i))
  })

  it('takes back the steps that a resumed run does again', () => {
    const curves = filled(10)
    curves.push(7, point(70))
    const { step, cost1000 } = curves.rows(0, Infinity, 100)
    expect(step).toEqual([1, 2, 3, 4, 5, 6, 7])
    expect(cost1000.at(-1)).toBe(70)
  })

  it('says null for what is not finite', () => {
    const curves = new Curves()
    curves.push(1, point(Infinity))
    expect(curves.rows(0, Infinity, 10).cost1000).toEqual([null])
  })
})
