import { cover } from '@convoy/reduction'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { cutLeaves, cutNodes, FrameCounts, nodesOf, type Speed } from './plan.ts'

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

describe('cutNodes', () => {
  const cut = (leaves: number, speeds: readonly Speed[], largest = 64) =>
    cutNodes(new FrameCounts(leaves, largest), speeds)
  const equal = (count: number, frame: number) => Array.from({ length: count }, () => ({ leaf: 1, frame }))

  it('cuts by speed where frames cost nothing, with no more of them than that needs', () => {
    expect(cut(8, equal(2, 0))).toEqual([4, 4])
    expect(cut(8, equal(3, 0))).toEqual([2, 3, 3])
    expect(
      cut(
        8,
        [1, 3].map((leaf) => ({ leaf, frame: 0 })),
      ),
    ).toEqual([6, 2])
  })

  it('keeps to whole nodes where a frame costs more than a leaf', () => {
    expect(cut(8, equal(4, 2))).toEqual([2, 2, 2, 2])
    // A third one would not end it earlier: two workers need 4 + 2·2, three with 3 leaves in two frames 3 + 3·2.
    expect(cut(8, equal(3, 2))).toEqual([0, 4, 4])
    expect(cut(8, equal(3, 0.5))).toEqual([2, 3, 3])
  })

  it('gives nothing to a link that takes longer than the others need', () => {
    expect(
      cut(8, [
        { leaf: 1, frame: 0.1 },
        { leaf: 1, frame: 5 },
      ]),
    ).toEqual([8, 0])
  })

  it('cuts a batch of thousands of leaves at multiples of a power of two', () => {
    const shares = cut(3125, equal(3, 1))
    expect(shares.reduce((a, b) => a + b, 0)).toBe(3125)
    expect(shares.slice(0, -1).every((share) => share % 64 === 0)).toBe(true)
  })

  it('is done as early as any cut, but for 2 %, and then has the fewest frames', () => {
    const speed = fc.record({ leaf: fc.integer({ min: 1, max: 9 }), frame: fc.integer({ min: 0, max: 5 }) })
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 12 }),
        fc.array(speed, { minLength: 1, maxLength: 3 }),
        fc.constantFrom(1, 2, 4, 64),
        (leaves, speeds, largest) => {
          const job = { units: leaves, largest }
          const judge = (shares: readonly number[]) => {
            let lo = 0
            let frames = 0
            const ends = shares.map((share, i) => {
              const nodes = share > 0 ? [...nodesOf(lo, (lo += share), job)].length : 0
              frames += nodes
              return nodes > 0 ? share * speeds[i].leaf + (nodes + 1) * speeds[i].frame : 0
            })
            return { end: Math.max(...ends), frames }
          }
          const all = (left: number, workers: number): number[][] =>
            workers === 1
              ? [[left]]
              : Array.from({ length: left + 1 }, (_, n) =>
                  all(left - n, workers - 1).map((rest) => [n, ...rest]),
                ).flat()
          const others = all(leaves, speeds.length).map(judge)
          const best = 1.02 * Math.min(...others.map(({ end }) => end))
          const shares = cut(leaves, speeds, largest)
          expect(shares.reduce((a, b) => a + b, 0)).toBe(leaves)
          const ours = judge(shares)
          expect(ours.end).toBeLessThanOrEqual(best + 1e-9)
          const good = others.filter(({ end }) => end <= best)
          expect(ours.frames).toBe(Math.min(...good.map(({ frames }) => frames)))
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
