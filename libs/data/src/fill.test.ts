import { RandomStream } from '@convoy/random'
import { describe, expect, it } from 'vitest'
import { reflect, unvaried, vary } from './augmentation.ts'
import { ImageFiller } from './fill.ts'
import type { PreprocessingSpec } from './preprocessing.ts'
import { channelStatistics } from './statistics.ts'

const none = { flip: false, shift: 0 }

describe('ImageFiller', () => {
  it('normalises by channel', () => {
    const filler = new ImageFiller(
      [1, 2, 3],
      { kind: 'channels', mean: [0.5, 0.2, 0], deviation: [0.5, 0.1, 2] },
      none,
    )
    const into = new Float32Array(6)
    filler.fill(Uint8Array.of(255, 51, 0, 0, 0, 255), undefined, into)
    const expected = [1, 0, 0, -1, -2, 0.5]
    into.forEach((value, i) => expect(value).toBeCloseTo(expected[i], 6))
  })

  it('normalises contrast to mean 0 and norm 55, and one colour to 0', () => {
    const filler = new ImageFiller([4, 4, 3], { kind: 'gcn', scale: 55 }, none)
    const into = new Float32Array(48)
    filler.fill(
      Uint8Array.from({ length: 48 }, (_, i) => (i * 37) % 256),
      undefined,
      into,
    )
    expect(into.reduce((a, b) => a + b)).toBeCloseTo(0, 3)
    expect(Math.sqrt(into.reduce((sum, value) => sum + value * value, 0))).toBeCloseTo(55, 3)
    filler.fill(new Uint8Array(48).fill(9), undefined, into)
    expect(into.every((value) => value === 0)).toBe(true)
  })

  it('varies as its key says: the image mirrored, shifted and reflected', () => {
    const size = 5
    const pixels = Float32Array.from({ length: size * size }, (_, i) => i)
    const spec = { flip: true, shift: 2 }
    const filler = new ImageFiller([size, size, 1], { kind: 'none' }, spec)
    const seen = new Set<string>()
    for (let sample = 0; sample < 200; sample++) {
      const key = { seed: 1, epoch: 2, sample }
      const variation = unvaried()
      vary(spec, [size, size, 1], key, new RandomStream(0), variation)
      seen.add(JSON.stringify(variation))
      const into = new Float32Array(size * size)
      filler.fill(pixels, key, into)
      for (let y = 0; y < size; y++) {
        for (let x = 0; x < size; x++) {
          const column = reflect(x - variation.right, size)
          const from =
            reflect(y - variation.down, size) * size + (variation.flip ? size - 1 - column : column)
          expect(into[y * size + x]).toBe(from)
        }
      }
    }
    // Two flips and 25 shifts, nearly all of which come up.
    expect(seen.size).toBeGreaterThan(45)
  })

  it.each([
    ['an odd square', 3],
    ['an even square', 4],
    ['a square that is larger than the image', 12],
  ])('cuts out %s, after all else, as far as it lies in the image', (_, cutout) => {
    const pixels = Uint8Array.from({ length: 35 * 3 }, (_, i) => 1 + i)
    const uncut = { flip: true, shift: 2 }
    const preprocessings: PreprocessingSpec[] = [
      { kind: 'channels', mean: [0, 0, 0], deviation: [1, 1, 1] },
      { kind: 'gcn', scale: 55 },
    ]
    for (const preprocessing of preprocessings) {
      const filler = new ImageFiller([5, 7, 3], preprocessing, { ...uncut, cutout })
      const whole = new ImageFiller([5, 7, 3], preprocessing, uncut)
      for (let sample = 0; sample < 100; sample++) {
        const key = { seed: 1, epoch: 2, sample }
        const variation = unvaried()
        vary({ ...uncut, cutout }, [5, 7, 3], key, new RandomStream(0), variation)
        const { top, left } = variation
        const into = new Float32Array(105)
        const expected = new Float32Array(105)
        filler.fill(pixels, key, into)
        whole.fill(pixels, key, expected)
        for (let i = 0; i < 105; i++) {
          const [y, x] = [Math.floor(i / 21), Math.floor((i % 21) / 3)]
          if (y >= top && y < top + cutout && x >= left && x < left + cutout) expected[i] = 0
        }
        expect(into).toEqual(expected)
        expect(into.includes(0)).toBe(true)
      }
    }
  })

  it('does not vary images that are tested', () => {
    const filler = new ImageFiller([2, 2, 1], { kind: 'none' }, { flip: true, shift: 1, cutout: 1 })
    const into = new Float32Array(4)
    filler.fill(Float32Array.of(1, 2, 3, 4), undefined, into)
    expect([...into]).toEqual([1, 2, 3, 4])
  })
})

describe('reflect', () => {
  it('does not repeat the border', () => {
    expect([-3, -2, -1, 0, 3, 4, 5].map((i) => reflect(i, 4))).toEqual([3, 2, 1, 0, 3, 2, 1])
    expect(reflect(-7, 1)).toBe(0)
  })
})

describe('channelStatistics', () => {
  it('are mean and deviation in 0 … 1', () => {
    const split = { count: 1, labels: Int32Array.of(0), pixels: Uint8Array.of(0, 51, 255, 51) }
    const { mean, deviation } = channelStatistics(split, 2)
    expect(mean[0]).toBeCloseTo(0.5, 12)
    expect(mean[1]).toBeCloseTo(0.2, 12)
    expect(deviation[0]).toBeCloseTo(0.5, 12)
    expect(deviation[1]).toBeCloseTo(1e-6, 12)
  })
})
