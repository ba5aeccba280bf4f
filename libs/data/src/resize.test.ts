import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Cropper, Shrinker } from './resize.ts'

type Shape = [height: number, width: number, channels: number]

function shrink(from: Shape, to: Shape, pixels: Uint8Array): Uint8Array {
  const into = new Uint8Array(to[0] * to[1] * to[2])
  new Shrinker(from, to).resize(pixels, undefined, into)
  return into
}

/** A shape, a smaller one, and an image of the first. */
const cases = fc
  .record({
    h: fc.integer({ min: 2, max: 40 }),
    w: fc.integer({ min: 2, max: 40 }),
    c: fc.integer({ min: 1, max: 4 }),
  })
  .chain(({ h, w, c }) =>
    fc.record({
      from: fc.constant<Shape>([h, w, c]),
      to: fc.tuple(fc.integer({ min: 1, max: h }), fc.integer({ min: 1, max: w }), fc.constant(c)),
      pixels: fc.uint8Array({ minLength: h * w * c, maxLength: h * w * c }),
    }),
  )

/** The share of pixel `i` of `from` that lies in pixel `o` of `to`, in [0, 1]. */
const overlap = (i: number, from: number, o: number, to: number) =>
  Math.max(0, Math.min((i + 1) * to, (o + 1) * from) - Math.max(i * to, o * from))

describe('Shrinker', () => {
  it('gives the area-weighted mean, rounded half up', () => {
    fc.assert(
      fc.property(cases, ({ from: [h, w, c], to, pixels }) => {
        const expected: number[] = []
        for (let y = 0; y < to[0]; y++) {
          for (let x = 0; x < to[1]; x++) {
            for (let channel = 0; channel < c; channel++) {
              let sum = 0n
              for (let i = 0; i < h; i++) {
                for (let j = 0; j < w; j++) {
                  const weight = overlap(i, h, y, to[0]) * overlap(j, w, x, to[1])
                  sum += BigInt(weight * pixels[(i * w + j) * c + channel])
                }
              }
              const area = BigInt(h * w)
              expected.push(Number((2n * sum + area) / (2n * area)))
            }
          }
        }
        expect([...shrink([h, w, c], to, pixels)]).toEqual(expected)
      }),
      { numRuns: 60 },
    )
  })

  it('leaves a constant image constant', () => {
    fc.assert(
      fc.property(cases, fc.nat(255), ({ from, to, pixels }, value) => {
        expect(shrink(from, to, pixels.fill(value)).every((one) => one === value)).toBe(true)
      }),
    )
  })

  it('keeps the mean within what rounding takes', () => {
    const mean = (values: Uint8Array) => values.reduce((a, b) => a + b, 0) / values.length
    fc.assert(
      fc.property(cases, ({ from, to, pixels }) => {
        expect(Math.abs(mean(shrink(from, to, pixels)) - mean(pixels))).toBeLessThanOrEqual(0.5 + 1e-9)
      }),
    )
  })

  it('is the mean of 2×2 pixels at half the size', () => {
    const pixels = Uint8Array.from({ length: 32 * 32 }, (_, i) => (i * i * 31) % 256)
    const small = shrink([32, 32, 1], [16, 16, 1], pixels)
    for (let y = 0; y < 16; y++) {
      for (let x = 0; x < 16; x++) {
        const at = 64 * y + 2 * x
        const sum = pixels[at] + pixels[at + 1] + pixels[at + 32] + pixels[at + 33]
        expect(small[16 * y + x]).toBe((sum + 2) >> 2)
      }
    }
  })

  it('weighs parts of pixels: four become three', () => {
    const row = Uint8Array.of(0, 40, 80, 240)
    // (3·0 + 40) / 4, (2·40 + 2·80) / 4, (80 + 3·240) / 4, in both rows that become one.
    expect([...shrink([2, 4, 1], [1, 3, 1], Uint8Array.of(...row, ...row))]).toEqual([10, 60, 200])
  })

  it('is not out for the largest images', () => {
    const from: Shape = [511, 509, 1]
    expect(shrink(from, [508, 256, 1], new Uint8Array(511 * 509).fill(255)).every((one) => one === 255)).toBe(
      true,
    )
  })
})

describe('Cropper', () => {
  const from: Shape = [6, 8, 2]
  const to: Shape = [4, 4, 2]
  const pixels = Uint8Array.from({ length: 96 }, (_, i) => i)
  const cropper = new Cropper(from, to)
  const crop = (sample?: number) => {
    const into = new Uint8Array(32)
    cropper.resize(pixels, sample === undefined ? undefined : { seed: 1, epoch: 2, sample }, into)
    return into
  }

  it('cuts a window out, each place coming up', () => {
    const seen = new Set<number>()
    for (let sample = 0; sample < 200; sample++) {
      const into = crop(sample)
      const first = into[0]
      seen.add(first)
      into.forEach((value, i) => expect(value).toBe(first + Math.floor(i / 8) * 16 + (i % 8)))
    }
    const places = [0, 1, 2].flatMap((y) => [0, 1, 2, 3, 4].map((x) => 16 * y + 2 * x))
    expect([...seen].sort((a, b) => a - b)).toEqual(places)
  })

  it('is a function of the key', () => {
    const other = new Cropper(from, to)
    other.resize(pixels, { seed: 9, epoch: 9, sample: 9 }, new Uint8Array(32))
    const into = new Uint8Array(32)
    other.resize(pixels, { seed: 1, epoch: 2, sample: 5 }, into)
    expect(into).toEqual(crop(5))
  })

  it('takes the middle of an image that has no key', () => {
    expect(crop()[0]).toBe(16 + 4)
  })
})
