import { describe, expect, it } from 'vitest'
import { Budget } from './limits.ts'

describe('Budget', () => {
  it('gives a burst, then so many a second, and never saves up more than a burst', () => {
    const budget = new Budget({ burst: 3, perSecond: 2 }, 0)
    const taken = (count: number, at: number) =>
      Array.from({ length: count }, () => budget.take(at)).filter(Boolean).length
    expect(taken(10, 0)).toBe(3)
    expect(taken(10, 400)).toBe(0)
    expect(taken(10, 1_000)).toBe(2)
    expect(taken(10, 1e9)).toBe(3)
    budget.give()
    expect(taken(10, 1e9)).toBe(1)
  })
})
