import { describe, expect, it } from 'vitest'
import { Samples } from './samples.ts'

/** 2,000 images of one pixel, each of which is its number modulo 251, as its label is modulo 10. */
const pixels = (_: unknown, i: number) => i % 251
const labels = Int32Array.from({ length: 2_000 }, (_, i) => i % 10)
const bytes = { count: 2_000, labels, pixels: Uint8Array.from({ length: 2_000 }, pixels) }
const floats = { count: 2_000, labels, pixels: Float32Array.from({ length: 2_000 }, pixels) }

describe('samples of a split', () => {
  it.each([
    { pixels: 'uint8', split: bytes },
    { pixels: 'float32', split: floats },
  ])('are gathered as $pixels, few or as many as a relay is sent', ({ pixels, split }) => {
    const samples = new Samples(split)
    for (const count of [3, 1_500, 2]) {
      const from = 2_000 - count
      const ids = Uint32Array.from({ length: count }, (_, i) => from + i)
      const request = samples.request(ids, true)
      expect(request.pixels).toBe(pixels)
      expect(request.payloads).toEqual([ids, split.labels.subarray(from), split.pixels.subarray(from)])
    }
  })

  it('stay where they are for whoever has them', () => {
    const ids = Uint32Array.of(7)
    const request = new Samples(bytes).request(ids, false)
    expect(request).toEqual({ pixels: 'none', payloads: [ids] })
  })
})
