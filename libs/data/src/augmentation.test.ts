import { RandomStream } from '@convoy/random'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  augmentationSpec,
  scaleAugmentation,
  unvaried,
  vary,
  type AugmentationSpec,
  type SampleKey,
} from './augmentation.ts'

const random = new RandomStream(0)
const draw = (spec: AugmentationSpec, key: SampleKey) => {
  const variation = unvaried()
  vary(spec, [32, 32, 3], key, random, variation)
  return variation
}
const keys = fc.record({ seed: fc.maxSafeNat(), epoch: fc.nat(2000), sample: fc.nat(1_000_000) })

describe('augmentationSpec', () => {
  it('is what it was before there were alternating mirrors and cutouts', () => {
    expect(augmentationSpec.parse({ flip: true, shift: 4 })).toEqual({ flip: true, shift: 4 })
    expect(augmentationSpec.safeParse({ flip: 'sometimes', shift: 4 }).success).toBe(false)
  })
})

describe('an alternating flip', () => {
  const spec = { flip: 'alternating', shift: 3 } as const

  it('mirrors each image in every other epoch', () => {
    fc.assert(
      fc.property(keys, (key) => {
        const { flip } = draw(spec, key)
        expect(draw(spec, { ...key, epoch: key.epoch + 1 }).flip).toBe(!flip)
        expect(draw(spec, { ...key, epoch: key.epoch + 2 }).flip).toBe(flip)
      }),
    )
  })

  it('mirrors about half of the images in any epoch', () => {
    const samples = Array.from({ length: 10_000 }, (_, sample) => sample)
    const mirrored = samples.filter((sample) => draw(spec, { seed: 7, epoch: 3, sample }).flip).length
    // The deviation is 50.
    expect(Math.abs(mirrored - 5000)).toBeLessThan(250)
  })

  it('leaves the shift to the epoch', () => {
    const shifts = Array.from({ length: 20 }, (_, epoch) => draw(spec, { seed: 1, epoch, sample: 5 }).down)
    expect(new Set(shifts).size).toBeGreaterThan(3)
  })
})

describe('vary', () => {
  it('draws the same flips and shifts with a cutout as without', () => {
    fc.assert(
      fc.property(keys, (key) => {
        const spec = { flip: true, shift: 4 }
        const { flip, down, right } = draw(spec, key)
        expect(draw({ ...spec, cutout: 8 }, key)).toMatchObject({ flip, down, right, cutout: 8 })
      }),
    )
  })

  it('draws flips and shifts that it has always drawn', () => {
    const drawn = [0, 1, 2, 3].map((sample) => draw({ flip: true, shift: 4 }, { seed: 1, epoch: 2, sample }))
    expect(drawn.map(({ flip, down, right }) => [flip, down, right])).toEqual([
      [false, 4, 3],
      [true, 2, 4],
      [false, 2, 0],
      [true, -4, -1],
    ])
  })

  it('has the centre of a cutout anywhere in the image', () => {
    const spec = { flip: false, shift: 0, cutout: 5 }
    const drawn = Array.from({ length: 5000 }, (_, sample) => draw(spec, { seed: 1, epoch: 0, sample }))
    for (const side of ['top', 'left'] as const) {
      const all = drawn.map((one) => one[side])
      expect([Math.min(...all), Math.max(...all)]).toEqual([-2, 29])
      expect(new Set(all).size).toBe(32)
    }
  })
})

describe('scaleAugmentation', () => {
  it.each([
    [16, { shift: 2, cutout: 4 }],
    [20, { shift: 3, cutout: 5 }],
    [24, { shift: 3, cutout: 6 }],
    [32, { shift: 4, cutout: 8 }],
  ])('shrinks shift and cutout with the images, at %i pixels of 32', (size, expected) => {
    expect(scaleAugmentation({ flip: true, shift: 4, cutout: 8 }, size, 32)).toEqual({
      flip: true,
      ...expected,
    })
  })

  it('leaves 1 of what is more than 0', () => {
    expect(scaleAugmentation({ flip: false, shift: 1 }, 8, 32)).toMatchObject({ shift: 1, cutout: 0 })
    expect(scaleAugmentation({ flip: false, shift: 0, cutout: 1 }, 8, 32)).toMatchObject({
      shift: 0,
      cutout: 1,
    })
  })

  it('has a window take the place of the shift, where there is a window', () => {
    const spec = { flip: false, shift: 4, resize: 'crop' } as const
    expect(scaleAugmentation(spec, 24, 32).shift).toBe(0)
    expect(scaleAugmentation(spec, 32, 32).shift).toBe(4)
  })
})
