import { describe, expect, it } from 'vitest'
import { leafSizes, smallestGood } from './micro-batch.ts'

describe('leafSizes', () => {
  it('leaves each worker a leaf of a batch', () => {
    expect(leafSizes(128, 2, false)).toEqual([8, 16, 32, 64])
    expect(leafSizes(100, 4, false)).toEqual([8, 16])
    expect(leafSizes(512, 1, true)).toEqual([64, 128, 256, 512])
    expect(leafSizes(1, 8, true)).toEqual([1])
    expect(leafSizes(50_000, 1, true).at(-1)).toBe(2048)
  })
})

describe('smallestGood', () => {
  it('is the smallest that reaches 95 % of the fastest', () => {
    const speeds = new Map([[64, 900], [128, 951], [256, 940], [512, 1000], [1024, 990]]) // prettier-ignore
    expect(smallestGood(speeds)).toBe(128)
    expect(smallestGood(new Map([[16, 3]]))).toBe(16)
  })
})
