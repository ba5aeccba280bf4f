import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Purpose, RandomStream } from './stream.ts'
import { threefry2x32 } from './threefry.ts'

describe('threefry2x32', () => {
  // Known answers of the Random123 library (kat_vectors, threefry2x32 20).
  it.each([
    [
      [0, 0],
      [0, 0],
      [0x6b200159, 0x99ba4efe],
    ],
    [
      [0xffffffff, 0xffffffff],
      [0xffffffff, 0xffffffff],
      [0x1cb996fc, 0xbb002be7],
    ],
    [
      [0x13198a2e, 0x03707344],
      [0x243f6a88, 0x85a308d3],
      [0xc4923a9c, 0x483df7a0],
    ],
  ])('with key %j and counter %j gives %j', (key, counter, expected) => {
    const into = new Uint32Array(2)
    threefry2x32(key[0], key[1], counter[0], counter[1], into)
    expect([...into]).toEqual(expected)
  })
})

describe('RandomStream', () => {
  const first = (stream: RandomStream, n = 8) => Array.from({ length: n }, () => stream.uint32())

  it('is a pure function of its key', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), fc.array(fc.maxSafeNat(), { maxLength: 4 }), (seed, path) => {
        expect(first(new RandomStream(seed, ...path))).toEqual(first(new RandomStream(seed, ...path)))
      }),
    )
  })

  it('differs by seed, beyond 32 bits too, and by each part of the path', () => {
    const keys = [
      [1],
      [2],
      [2 ** 32 + 1],
      [1, 0],
      [1, 0, 0],
      [1, 1],
      [1, 2 ** 40],
      [1, Purpose.dropout, 3, 4],
      [1, Purpose.dropout, 4, 3],
    ]
    const streams = keys.map(([seed, ...path]) => first(new RandomStream(seed, ...path)).join())
    expect(new Set(streams).size).toBe(keys.length)
  })

  it('fills as it draws, and starts over when rekeyed', () => {
    for (const length of [1, 2, 7, 64]) {
      const filled = new Uint32Array(length)
      const stream = new RandomStream(9, 1)
      stream.uint32()
      stream.rekey(9, 5).fill(filled)
      expect([...filled]).toEqual(first(new RandomStream(9, 5), length))
    }
  })

  it('draws below a bound without bias', () => {
    const stream = new RandomStream(3)
    const counts = new Array<number>(10).fill(0)
    for (let i = 0; i < 100_000; i++) counts[stream.below(10)]++
    const chiSquare = counts.reduce((sum, n) => sum + (n - 10_000) ** 2 / 10_000, 0)
    // 9 degrees of freedom: 33.7 is exceeded once in 10,000.
    expect(chiSquare).toBeLessThan(33.7)
  })

  it('draws uniform and normal numbers of the right mean and variance', () => {
    const stream = new RandomStream(4)
    const moments = (draw: () => number) => {
      const values = Array.from({ length: 50_000 }, draw)
      const mean = values.reduce((a, b) => a + b, 0) / values.length
      return [mean, values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length]
    }
    const [uniformMean, uniformVariance] = moments(() => stream.uniform())
    expect(uniformMean).toBeCloseTo(0.5, 2)
    expect(uniformVariance).toBeCloseTo(1 / 12, 2)
    const [normalMean, normalVariance] = moments(() => stream.normal())
    expect(Math.abs(normalMean)).toBeLessThan(0.02)
    expect(Math.abs(normalVariance - 1)).toBeLessThan(0.03)
  })
})
