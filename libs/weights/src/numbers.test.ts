import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { toFloat32 } from './numbers.ts'

const of16 = (...values: number[]) => new Uint8Array(Uint16Array.from(values).buffer)

describe('#toFloat32', () => {
  it('widens halves exactly: normal, below normal, infinite, NaN, signed zero', () => {
    const halves = of16(0x3c00, 0xc000, 0x0001, 0x03ff, 0x0400, 0x7bff, 0x7c00, 0x8000, 0x7e00)
    expect([...toFloat32(halves, 'float16')]).toEqual([
      ...[1, -2, 2 ** -24, 1023 * 2 ** -24, 2 ** -14, 65_504, Infinity, -0, NaN],
    ])
  })

  it('widens every finite half to its value', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 0x7bff }), (half) => {
        const [exponent, fraction] = [half >> 10, half & 0x3ff]
        const value = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25)
        expect([...toFloat32(of16(half, half | 0x8000), 'float16')]).toEqual([value, -value])
      }),
    )
  })

  it('widens bfloat16 and rounds float64', () => {
    expect([...toFloat32(of16(0x3f80, 0xc040), 'bfloat16')]).toEqual([1, -3])
    const doubles = new Uint8Array(Float64Array.of(0.1, 1 + 2 ** -30, 1e300).buffer)
    expect([...toFloat32(doubles, 'float64')]).toEqual([Math.fround(0.1), 1, Infinity])
  })
})
