import { buildModel, type LayerSpec, type ModelSpec } from '@convoy/model'
import { describe, expect, it } from 'vitest'
import { Masks } from './masks.ts'

const layers = (...rates: number[]): LayerSpec[] => rates.map((rate) => ({ kind: 'dropout', rate }))
const model = (...rates: number[]): ModelSpec => ({
  ...buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 }),
  layers: layers(...rates),
})
const key = { seed: 7, epoch: 2, step: 5, leaf: 3 }

describe('Masks', () => {
  it.each([0, 0.2, 0.25, 0.3, 0.5, 0.75, 0.9])(
    'drops a share of %d, and writes nothing but 0 and 1',
    (rate) => {
      const masks = new Masks(model(rate), 16)
      masks.fill(key, 16)
      const [mask] = masks.values
      const kept = mask.filter((value) => value === 1).length
      expect(mask.filter((value) => value === 0)).toHaveLength(mask.length - kept)
      // Five deviations of a binomial share.
      const deviation = Math.sqrt((rate * (1 - rate)) / mask.length)
      expect(Math.abs(kept / mask.length - (1 - rate))).toBeLessThanOrEqual(5 * deviation)
    },
  )

  it('is a function of seed, epoch, step, leaf and layer, and of nothing that was drawn before', () => {
    const masks = new Masks(model(0.5, 0.5), 4)
    const draw = (change: Partial<typeof key>) => {
      masks.fill({ ...key, ...change }, 4)
      return masks.values.map((mask) => mask.join(''))
    }
    const first = draw({})
    const others = [{ seed: 8 }, { epoch: 3 }, { step: 6 }, { leaf: 4 }].flatMap(draw)
    expect(new Set([...first, ...others]).size).toBe(10)
    expect(draw({})).toEqual(first)
    const fresh = new Masks(model(0.5, 0.5), 16)
    fresh.fill(key, 4)
    expect(fresh.values.map((mask, i) => mask.subarray(0, masks.values[i].length).join(''))).toEqual(first)
  })

  it.each([0.5, 0.25, 0.3])('gives a sample the same mask however many follow it, at rate %d', (rate) => {
    const masks = new Masks(model(rate), 5)
    masks.fill(key, 5)
    const all = masks.values[0].slice()
    masks.values[0].fill(9)
    masks.fill(key, 3)
    const three = 3 * 32 * 32 * 3
    expect(masks.values[0].subarray(0, three)).toEqual(all.subarray(0, three))
    expect(masks.values[0].subarray(three).every((value) => value === 9)).toBe(true)
  })

  it('follows the shapes of the dropout layers', () => {
    const masks = new Masks(
      buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, inputDropout: 0.2 }),
      2,
    )
    expect(masks.values.map((mask) => mask.length)).toEqual(
      [32 * 32 * 3, 16 * 16 * 96, 8 * 8 * 192].map((n) => 2 * n),
    )
    expect(new Masks(model(), 2).values).toEqual([])
  })
})
