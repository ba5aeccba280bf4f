import { cover } from '@convoy/reduction'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cutLeaves, nodesOf } from './plan.ts'

describe('cutLeaves', () => {
  it('cuts by speed', () => {
    expect(cutLeaves(8, [1, 1])).toEqual([4, 4])
    expect(cutLeaves(8, [3, 1])).toEqual([6, 2])
    expect(cutLeaves(8, [1, 1, 0.01])).toEqual([4, 4, 0])
    expect(cutLeaves(1, [1, 2])).toEqual([0, 1])
  })

  it('gives nobody more than it may have', () => {
    expect(cutLeaves(8, [1, 1, 1], [1, Infinity, Infinity])).toEqual([1, 4, 3])
    expect(cutLeaves(8, [1, 9], [Infinity, 1])).toEqual([7, 1])
  })

  it('hands out every leaf, and no other cut would end earlier', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 8 }),
        fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 3 }),
        (leaves, rates) => {
          const shares = cutLeaves(leaves, rates)
          const ends = (cut: readonly number[]) => Math.max(...cut.map((n, i) => n / rates[i]))
          expect(shares.reduce((a, b) => a + b, 0)).toBe(leaves)
          const all = (left: number, workers: number): number[][] =>
            workers === 1
              ? [[left]]
              : Array.from({ length: left + 1 }, (_, n) =>
                  all(left - n, workers - 1).map((rest) => [n, ...rest]),
                ).flat()
          const best = Math.min(...all(leaves, rates.length).map(ends))
          expect(ends(shares)).toBeCloseTo(best, 9)
        },
      ),
    )
  })
})

describe('nodesOf', () => {
  it('covers the leaves in their order by nodes of the tree, none larger than is allowed', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 200 }),
        fc.nat(199),
        fc.nat(199),
        fc.integer({ min: 0, max: 6 }),
        (units, a, b, power) => {
          const [lo, hi] = [Math.min(a, b) % units, (Math.max(a, b) % units) + 1].sort((x, y) => x - y)
          const largest = 2 ** power
          let next = lo
          for (const [from, to] of nodesOf(lo, hi, { units, largest })) {
            expect(from).toBe(next)
            expect(to - from).toBeLessThanOrEqual(largest)
            expect([...cover(from, to, units)]).toEqual([[from, to]])
            next = to
          }
          expect(next).toBe(hi)
        },
      ),
    )
  })
})
