import { describe, expect, it } from 'vitest'
import type { RunEvent } from '../events.ts'
import { TimeLeft } from './time-left.ts'

const start = (more: object = {}) =>
  ({ event: 'start', trainImages: 100, stepsPerEpoch: 10, epochs: 4, resumedAt: 0, ...more }) as RunEvent
const step = (step: number, seconds: number, more: object = {}) =>
  ({ event: 'step', step, samples: 10, seconds, computeSeconds: seconds, ...more }) as RunEvent

function after(...events: RunEvent[]): number {
  const left = new TimeLeft()
  for (const event of events) left.hear(event)
  return left.seconds
}

const sizes = [
  { from: 0, size: 16 },
  { from: 20, size: 32 },
]

describe('TimeLeft', () => {
  it('has the second step take the place of the first, which warms up', () => {
    expect(after(start())).toBeNaN()
    expect(after(start(), step(1, 60))).toBe(39 * 60)
    expect(after(start(), step(1, 60), step(2, 1))).toBe(38)
    expect(after(start(), step(1, 60), step(2, 1), step(3, 2))).toBe(37 * 1.5)
  })

  it('ends where the run is expected to end, and goes back with it', () => {
    const test = (expectedEpoch: number | null) => ({ event: 'test', expectedEpoch }) as RunEvent
    expect(after(start({ steps: 22 }), step(2, 1))).toBe(20)
    expect(after(start(), step(20, 1), test(3))).toBe(10)
    expect(after(start(), step(20, 1), test(3), test(null))).toBe(20)
    expect(after(start(), step(20, 1), test(1))).toBe(0)
    expect(after(start(), step(20, 1), { event: 'rolledBack', to: 10 } as RunEvent)).toBe(30)
  })

  it('counts what engines do by the work that is left, and the rest by the steps', () => {
    // 20 steps in all at a quarter of the cost, 20 at the whole; half a second of each is update and wire.
    const small = (n: number) => step(n, 1.5, { size: 16, computeSeconds: 1 })
    expect(after(start({ sizes }), small(1), small(2))).toBe(38 * 0.5 + (18 / 4 + 20) * 4)
    const full = [21, 22, 23].map((n) => step(n, 4.5, { computeSeconds: 4 }))
    expect(after(start({ sizes }), ...Array.from({ length: 20 }, (_, i) => small(i + 1)), ...full)).toBe(
      17 * 4.5,
    )
  })

  it('moves towards what steps of the present size take within ten of them', () => {
    const before = Array.from({ length: 20 }, (_, i) => step(i + 1, 1, { size: 16 }))
    const now = Array.from({ length: 10 }, (_, i) => step(i + 21, 3))
    const left = after(start({ sizes }), ...before, ...now)
    expect(left).toBeGreaterThan(10 * 3)
    expect(left).toBeLessThan(10 * 3.4)
  })

  it('takes all of a step for the engines’ where a run does not tell', () => {
    expect(after(start({ sizes }), step(2, 1, { size: 16, computeSeconds: undefined }))).toBe(
      (18 / 4 + 20) * 4,
    )
  })
})
