import { describe, expect, it } from 'vitest'
import type { AugmentationSpec } from './augmentation.ts'
import { ImageFiller } from './fill.ts'
import { LeafImages } from './leaf.ts'
import type { PreprocessingSpec } from './preprocessing.ts'
import { Shrinker } from './resize.ts'

const shape = [32, 32, 3] as const
const channels: PreprocessingSpec = { kind: 'channels', mean: [0.5, 0.4, 0.3], deviation: [0.25, 0.2, 0.3] }
const image = (sample: number) =>
  Uint8Array.from({ length: 3072 }, (_, i) => (i * i * 31 + sample * 77) % 256)

function leafOf(augmentation: AugmentationSpec, size?: number, samples = [0, 1, 2]): LeafImages {
  const leaf = new LeafImages(shape, channels, augmentation, 4, size)
  for (const sample of samples) leaf.add(image(sample), sample, { seed: 1, epoch: 1, sample })
  return leaf
}

describe('LeafImages', () => {
  it('shrinks images, then varies them as images of that size', () => {
    const leaf = leafOf({ flip: true, shift: 4, cutout: 8 }, 16)
    const filler = new ImageFiller([16, 16, 3], channels, { flip: true, shift: 2, cutout: 4 })
    for (const sample of [0, 1, 2]) {
      const small = new Uint8Array(768)
      new Shrinker(shape, [16, 16, 3]).resize(image(sample), undefined, small)
      const expected = new Float32Array(768)
      filler.fill(small, { seed: 1, epoch: 1, sample }, expected)
      expect(leaf.images.subarray(768 * sample, 768 * (sample + 1))).toEqual(expected)
    }
  })

  it.each(['shrink', 'crop'] as const)(
    'gives engines the bytes that its images are made of: %s',
    (resize) => {
      const leaf = leafOf({ flip: true, shift: 3, resize }, 24)
      const { pixels, table, variations } = leaf.stored!
      expect(pixels.map(({ length }) => length)).toEqual([1728, 1728, 1728])
      const filler = new ImageFiller([24, 24, 3], channels, { flip: false, shift: 0 })
      expect(table).toEqual(filler.table)
      const into = new Float32Array(1728)
      pixels.forEach((one, i) => {
        const [flip, down, right] = variations.subarray(3 * i)
        filler.place(one, { flip: flip === 1, down, right, cutout: 0, top: 0, left: 0 }, into)
        expect(into).toEqual(leaf.images.subarray(1728 * i, 1728 * (i + 1)))
      })
    },
  )

  it('makes the same images in arrays that were used before', () => {
    const leaf = leafOf({ flip: 'alternating', shift: 4, cutout: 8 }, 20, [7, 8, 9, 10])
    void leaf.images
    leaf.clear()
    for (const sample of [0, 1, 2]) leaf.add(image(sample), 0, { seed: 1, epoch: 1, sample })
    const expected = leafOf({ flip: 'alternating', shift: 4, cutout: 8 }, 20).images
    expect(leaf.images.subarray(0, 3600)).toEqual(expected.subarray(0, 3600))
  })

  it('gives no bytes where something is cut out', () => {
    expect(leafOf({ flip: true, shift: 4, cutout: 8 }).stored).toBeUndefined()
    expect(leafOf({ flip: true, shift: 4, cutout: 0 }).stored).toBeDefined()
  })

  it('gives each number of a smaller image the deviation that it has in a larger one', () => {
    const deviation = (size: number) => {
      const leaf = new LeafImages(shape, { kind: 'gcn', scale: 55 }, { flip: false, shift: 0 }, 1, size)
      leaf.add(image(1), 0, undefined)
      return Math.sqrt(leaf.images.reduce((sum, value) => sum + value * value, 0) / leaf.images.length)
    }
    expect(deviation(16)).toBeCloseTo(deviation(32), 5)
  })

  it('refuses to shrink what is no bytes', () => {
    const leaf = new LeafImages(shape, { kind: 'none' }, { flip: false, shift: 0 }, 1, 16)
    expect(() => leaf.add(new Float32Array(3072), 0, undefined)).toThrow(/bytes/)
  })
})
