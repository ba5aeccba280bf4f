import { ConvoyError } from '@convoy/errors'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { leafAt, parseSizes, sizeAt, sizeChanges, workBetween, workOf, type Stage } from './sizes.ts'

const shape = [32, 32, 3] as const
const parse = (text: string) => parseSizes(text, shape, 'channels')

describe('parseSizes', () => {
  it('reads sizes and shares, the last taking the rest', () => {
    expect(parse('16:0.4, 24:.3 ,32')).toEqual([
      { size: 16, share: 400_000 },
      { size: 24, share: 300_000 },
      { size: 32, share: 300_000 },
    ])
    expect(parse('32')).toEqual([{ size: 32, share: 1_000_000 }])
    // Any order, and a size again.
    expect(parse('24:0.123456,16:0.1,24:0.1,32')[0]).toEqual({ size: 24, share: 123_456 })
  })

  it.each([
    ['', /“” is no size/],
    ['small:0.5,32', /“small:0.5” is no size/],
    ['16:0.5,-32', /“-32” is no size/],
    ['18:0.5,32', /18 is no multiple of 4 from 8 on/],
    ['4:0.5,32', /4 is no multiple/],
    ['36:0.5,32', /36 is larger than the images, which are 32×32/],
    ['16,32', /16 has no share/],
    ['16:,32', /16 has no share/],
    ['16:0,32', /0 is no share/],
    ['16:1,32', /1 is no share/],
    ['16:40%,32', /40% is no share/],
    ['16:-0.4,32', /-0.4 is no share/],
    ['16:0.1234567,32', /0.1234567 is no share between 0 and 1, of six decimals/],
    ['16:0.5,24:0.5,32', /the shares leave nothing/],
    ['16:0.9,24:0.3,32', /the shares leave nothing/],
    ['16:0.5,24', /the last size must be 32/],
    ['16:0.5,32:0.5', /the last size has a share/],
  ])('refuses %j', (text, why) => {
    let error: unknown
    try {
      parse(text)
    } catch (thrown) {
      error = thrown
    }
    expect(error).toBeInstanceOf(ConvoyError)
    expect(error).toMatchObject({ code: 'E_USAGE', message: expect.stringMatching(why) as string })
    expect((error as ConvoyError).message).toContain(`--sizes ${text} is not possible`)
  })

  it('refuses images that are not square, and those that ZCA whitened as a whole', () => {
    expect(() => parseSizes('16:0.5,32', [32, 24, 3], 'channels')).toThrow(/32×24, not square/)
    expect(() => parseSizes('16:0.5,32', shape, 'zca')).toThrow(/ZCA whitens whole images/)
    expect(parseSizes('32', shape, 'zca')).toHaveLength(1)
    expect(parseSizes('16:0.5,32', shape, 'gcn')).toHaveLength(2)
  })
})

/** Stages whose sizes grow, so that a size says which stage it is of. */
const plans = fc
  .uniqueArray(fc.integer({ min: 1, max: 999_999 }), { minLength: 1, maxLength: 6 })
  .map((borders): Stage[] => {
    const ends = [...borders.sort((a, b) => a - b), 1_000_000]
    return ends.map((end, i) => ({ size: 8 + 4 * i, share: end - (ends[i - 1] ?? 0) }))
  })

describe('sizeAt', () => {
  it('goes through the stages in their order', () => {
    fc.assert(
      fc.property(plans, fc.integer({ min: 1, max: 2000 }), (stages, total) => {
        const sizes = Array.from({ length: total }, (_, step) => sizeAt(stages, step, total))
        expect(sizes).toEqual(sizes.toSorted((a, b) => a - b))
      }),
    )
  })

  it('gives each stage its share of the steps, less than one more or fewer', () => {
    fc.assert(
      fc.property(plans, fc.integer({ min: 1, max: 2000 }), (stages, total) => {
        const counts = new Map<number, number>()
        for (let step = 0; step < total; step++) {
          const size = sizeAt(stages, step, total)
          counts.set(size, (counts.get(size) ?? 0) + 1)
        }
        for (const { size, share } of stages)
          expect(Math.abs((counts.get(size) ?? 0) - (share * total) / 1e6)).toBeLessThan(1)
      }),
    )
  })

  it('is exact at the borders of runs of any length', () => {
    fc.assert(
      fc.property(
        plans,
        fc.integer({ min: 1, max: 5e10 }),
        fc.nat(5),
        fc.integer({ min: -1, max: 1 }),
        (stages, total, which, beside) => {
          const until = stages.slice(0, which + 1).reduce((sum, { share }) => sum + share, 0)
          const step = Math.max(0, Math.round((until * total) / 1e6) + beside)
          let share = 0
          const expected = stages.find((one) => {
            share += one.share
            return BigInt(step) * 1_000_000n < BigInt(share) * BigInt(total)
          })
          expect(sizeAt(stages, step, total)).toBe((expected ?? stages.at(-1)!).size)
        },
      ),
    )
  })

  it('changes where shares say so, and stays at the full size after the end', () => {
    const stages = parse('16:0.4,24:0.3,32')
    const at = (step: number) => sizeAt(stages, step, 10)
    expect([0, 3, 4, 6, 7, 9, 10, 1000].map(at)).toEqual([16, 16, 24, 24, 32, 32, 32, 32])
  })
})

describe('sizeChanges', () => {
  it('says where the size of a step becomes another one', () => {
    fc.assert(
      fc.property(plans, fc.integer({ min: 1, max: 300 }), (stages, total) => {
        const changes = sizeChanges(stages, total)
        const sizes = Array.from({ length: total }, (_, step) => sizeAt(stages, step, total))
        const at = (step: number) => changes.findLast(({ from }) => from <= step)?.size
        expect(sizes.map((_, step) => at(step))).toEqual(sizes)
        expect(changes.at(-1)!.size).toBe(stages.at(-1)!.size)
      }),
    )
  })

  it('joins what is of one size, and has the full size last where no step is left for it', () => {
    expect(sizeChanges(parse('16:0.2,16:0.2,24:0.1,32'), 10)).toEqual([
      { from: 0, size: 16 },
      { from: 4, size: 24 },
      { from: 5, size: 32 },
    ])
    expect(sizeChanges(parse('16:0.4,24:0.3,32'), 1)).toEqual([
      { from: 0, size: 16 },
      { from: 1, size: 32 },
    ])
  })
})

describe('workBetween', () => {
  it('adds up over the parts of a run, and counts steps without sizes as they are', () => {
    const changes = sizeChanges(parse('16:0.4,24:0.3,32'), 1000)
    expect(workBetween(changes, 399, 400)).toBe(1 / 4)
    expect(workBetween(changes, 300, 800)).toBe(100 / 4 + (300 * 9) / 16 + 100)
    expect(workBetween(changes, 800, 700)).toBe(0)
    expect(workBetween(undefined, 300, 800)).toBe(500)
  })
})

describe('workOf', () => {
  it('counts epochs at full size', () => {
    const epochs = { totalSteps: 1000, stepsPerEpoch: 100 }
    expect(workOf(parse('32'), epochs)).toBe(10)
    expect(workOf(parse('16:0.5,24:0.3,32'), epochs)).toBeCloseTo(5 / 4 + (3 * 9) / 16 + 2, 12)
  })

  it('is the sum over the steps', () => {
    fc.assert(
      fc.property(plans, fc.integer({ min: 1, max: 500 }), (stages, totalSteps) => {
        const full = stages.at(-1)!.size
        let sum = 0
        for (let step = 0; step < totalSteps; step++) sum += (sizeAt(stages, step, totalSteps) / full) ** 2
        expect(workOf(stages, { totalSteps, stepsPerEpoch: 7 })).toBeCloseTo(sum / 7, 8)
      }),
    )
  })
})

describe('leafAt', () => {
  it.each([
    [32, 16, 128, 16],
    [28, 16, 128, 16],
    [24, 16, 128, 16],
    [20, 16, 128, 32],
    // As many more as fit would be 64: a batch keeps four leaves.
    [16, 16, 128, 32],
    [16, 16, 512, 64],
    [8, 16, 1024, 256],
    // Three leaves at full size stay three.
    [16, 16, 40, 16],
    // One leaf a batch stays one, and no larger than the batch.
    [16, 64, 100, 64],
    [16, 64, 64, 64],
    [16, 64, 50, 64],
  ])('at %i pixels of 32, leaves of %i, batches of %i: %i', (size, microBatch, batchSize, expected) => {
    expect(leafAt(size, 32, microBatch, batchSize)).toBe(expected)
  })

  it('never has more pixels than a full leaf, nor fewer leaves than four or as many as there are', () => {
    const natural = (max: number) => fc.integer({ min: 1, max })
    fc.assert(
      fc.property(natural(16), natural(16), natural(300), natural(5000), (a, b, microBatch, batchSize) => {
        const [size, full] = [4 * Math.min(a, b), 4 * Math.max(a, b)]
        const leaf = leafAt(size, full, microBatch, batchSize)
        expect(leaf).toBeGreaterThanOrEqual(microBatch)
        expect(leaf * size * size).toBeLessThanOrEqual(microBatch * full * full)
        const atFull = Math.ceil(batchSize / microBatch)
        expect(Math.ceil(batchSize / leaf)).toBeGreaterThanOrEqual(Math.min(4, atFull))
      }),
    )
  })
})
