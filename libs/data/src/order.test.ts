import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { batchRange, epochOrder, leafCount, leafRange, stepCount } from './order.ts'

describe('epochOrder', () => {
  it('is a permutation, and a function of seed and epoch alone', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.nat(400), fc.integer({ min: 1, max: 300 }), (seed, epoch, count) => {
        const order = epochOrder(seed, epoch, count)
        expect([...order].sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, i) => i))
        expect(epochOrder(seed, epoch, count)).toEqual(order)
      }),
    )
  })

  it('differs by epoch and by seed', () => {
    const orders = [epochOrder(1, 0, 100), epochOrder(1, 1, 100), epochOrder(2, 0, 100)]
    expect(new Set(orders.map((order) => order.join())).size).toBe(3)
  })
})

describe('batches and leaves', () => {
  it('hold each sample of an epoch exactly once, the smaller last ones included', () => {
    const sizes = fc.integer({ min: 1, max: 100 })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 500 }), sizes, sizes, (count, batchSize, microBatch) => {
        const seen: number[] = []
        for (let step = 0; step < stepCount(count, batchSize); step++) {
          const [lo, hi] = batchRange(step, count, batchSize)
          expect(hi).toBeGreaterThan(lo)
          for (let leaf = 0; leaf < leafCount(hi - lo, microBatch); leaf++) {
            const [from, to] = leafRange(leaf, hi - lo, microBatch)
            expect(to).toBeGreaterThan(from)
            for (let i = from; i < to; i++) seen.push(lo + i)
          }
        }
        expect(seen).toEqual(Array.from({ length: count }, (_, i) => i))
      }),
    )
  })
})
