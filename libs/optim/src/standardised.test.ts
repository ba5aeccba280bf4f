import { Arena, type Slot } from '@convoy/arena'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NesterovSgd } from './nesterov.ts'
import { Standardised, type StandardisedKernel } from './standardised.ts'

/** Two kernels of 12 and 10 rows with their biases, and a last layer that is not standardised. */
const kernels: readonly StandardisedKernel[] = [
  { offset: 0, size: 12 * 9, filters: 9, scale: 1 },
  { offset: 12 * 9 + 9, size: 10 * 3, filters: 3, scale: 1.7 },
]
const LAST = 12 * 9 + 9 + 10 * 3 + 3
const SIZE = LAST + 8
/** Where the filters' means stand. */
const MEANS = SIZE + 9 + 3
const VARIABLES = MEANS + 9 + 3

/** Variables of which no filter is the same everywhere, and gains away from 0. */
const variablesOf = fc
  .tuple(
    fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: SIZE, maxLength: SIZE }),
    fc.array(fc.double({ min: 0.5, max: 2, noNaN: true }), { minLength: 12, maxLength: 12 }),
  )
  .map(([v, gains]) =>
    Float32Array.from([
      ...v.map((value, i) => value + Math.sin(i * i)),
      ...gains,
      ...Array<number>(12).fill(0),
    ]),
  )
const gradientOf = fc
  .array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: SIZE, maxLength: SIZE })
  .map((values) => Float32Array.from(values))

/** The elements of each filter, with the place of its gain and c. */
const filters = kernels.flatMap(({ offset, size, filters, scale }, k) =>
  Array.from({ length: filters }, (_, j) => ({
    places: Array.from({ length: size / filters }, (_, row) => offset + row * filters + j),
    gain: SIZE + (k === 0 ? 0 : 9) + j,
    scale,
  })),
)

/** The formula as it is in the papers, in float64. */
function formula(variables: ArrayLike<number>): number[] {
  const parameters = Array.from(variables).slice(0, SIZE)
  for (const { places, gain, scale } of filters) {
    const mean = places.reduce((sum, i) => sum + variables[i], 0) / places.length
    const variance = places.reduce((sum, i) => sum + (variables[i] - mean) ** 2, 0) / places.length
    for (const i of places) {
      parameters[i] = (variables[gain] * scale * (variables[i] - mean)) / Math.sqrt(variance * places.length)
    }
  }
  return parameters
}

/** A `Standardised` on these slots, all parts at once. */
function start(variables: Float32Array) {
  const arena = new Arena(SIZE)
  const parametrisation = new Standardised(arena, kernels)
  const slot = arena.hold(variables)
  const all = (body: (part: number) => void) => parametrisation.parts.forEach((_, part) => body(part))
  return {
    arena,
    parametrisation,
    variables: slot,
    kernels: (into: Slot = arena.take()) => {
      all((part) => parametrisation.kernels(slot, into, part))
      return into.values
    },
    gradient: (kernelGradient: Float32Array) => {
      const [from, into] = [arena.hold(kernelGradient), arena.take(VARIABLES)]
      all((part) => parametrisation.gradient(slot, from, into, part))
      return into.values
    },
  }
}

describe('Standardised', () => {
  it('has a gain for each filter, and parts that cover the parameters', () => {
    const { parametrisation } = start(new Float32Array(VARIABLES))
    expect(parametrisation.size).toBe(VARIABLES)
    expect(parametrisation.parts).toHaveLength(1)
    expect(parametrisation.parts[0]).toMatchObject({ parameters: [0, SIZE], gains: [SIZE, MEANS] })
    const large = [0, 200_000, 300_000, 700_000].map((offset, i) => ({
      offset,
      ...{ size: [199_000, 99_000, 390_000, 1000][i], filters: 10, scale: 1 },
    }))
    expect(new Standardised(new Arena(710_000), large).parts).toMatchObject([
      { parameters: [0, 200_000], gains: [710_000, 710_010] },
      { parameters: [200_000, 300_000], gains: [710_010, 710_020] },
      { parameters: [300_000, 700_000], gains: [710_020, 710_030] },
      { parameters: [700_000, 710_000], gains: [710_030, 710_040] },
    ])
    expect(new Standardised(new Arena(20), []).parts).toMatchObject([
      { parameters: [0, 20], gains: [20, 20] },
    ])
  })

  it("has the papers' kernels; biases and other kernels as they are", () => {
    fc.assert(
      fc.property(variablesOf, (variables) => {
        const found = start(variables).kernels()
        formula(variables).forEach((value, i) => expect(Math.abs(found[i] - value)).toBeLessThan(3e-7))
        expect(found.subarray(LAST)).toEqual(variables.subarray(LAST, SIZE))
        expect(found.subarray(12 * 9, 12 * 9 + 9)).toEqual(variables.subarray(12 * 9, 12 * 9 + 9))
      }),
    )
  })

  it('has filters of mean 0 and norm gain·c', () => {
    fc.assert(
      fc.property(variablesOf, (variables) => {
        const found = start(variables).kernels()
        for (const { places, gain, scale } of filters) {
          expect(places.reduce((sum, i) => sum + found[i], 0)).toBeCloseTo(0, 6)
          const norm = Math.sqrt(places.reduce((sum, i) => sum + found[i] * found[i], 0))
          expect(norm / (variables[gain] * scale)).toBeCloseTo(1, 6)
        }
      }),
    )
  })

  it('does not change where a filter is shifted or made longer', () => {
    const shift = fc.double({ min: -3, max: 3, noNaN: true })
    const factor = fc.double({ min: 0.2, max: 5, noNaN: true })
    fc.assert(
      fc.property(variablesOf, shift, factor, (variables, shift, factor) => {
        const moved = variables.slice()
        for (const { places } of filters) for (const i of places) moved[i] = factor * variables[i] + shift
        const [before, after] = [start(variables).kernels(), start(moved).kernels()]
        before.forEach((value, i) => expect(Math.abs(after[i] - value)).toBeLessThan(5e-6))
      }),
    )
  })

  it('has the gradient that central differences of the formula show', () => {
    fc.assert(
      fc.property(variablesOf, gradientOf, (variables, kernelGradient) => {
        const found = start(variables).gradient(kernelGradient)
        const cost = (at: number, step: number) => {
          const moved = Float64Array.from(variables)
          moved[at] += step
          return formula(moved).reduce((sum, value, i) => sum + value * kernelGradient[i], 0)
        }
        for (let i = 0; i < MEANS; i++) {
          const difference = (cost(i, 1e-5) - cost(i, -1e-5)) / 2e-5
          expect(Math.abs(found[i] - difference)).toBeLessThan(1e-6 * (1 + Math.abs(difference)))
        }
      }),
      { numRuns: 20 },
    )
  })

  it('has a gradient without a part along v, or along 1', () => {
    fc.assert(
      fc.property(variablesOf, gradientOf, (variables, kernelGradient) => {
        const found = start(variables).gradient(kernelGradient)
        for (const { places } of filters) {
          const length = Math.sqrt(places.reduce((sum, i) => sum + found[i] ** 2, 0))
          const along = (by: (i: number) => number) =>
            Math.abs(places.reduce((sum, i) => sum + found[i] * by(i), 0)) / (length + 1e-3)
          expect(along((i) => variables[i])).toBeLessThan(1e-5)
          expect(along(() => 1)).toBeLessThan(1e-5)
        }
      }),
    )
  })

  it('takes kernels back: those that it has made stay the same to a millionth', () => {
    fc.assert(
      fc.property(variablesOf, (variables) => {
        const here = start(variables)
        const made = here.kernels().slice()
        const again = start(here.parametrisation.fromKernels(made)).kernels()
        made.forEach((value, i) => expect(Math.abs(again[i] - value)).toBeLessThan(1e-6))
      }),
    )
  })

  it('takes kernels from elsewhere, whose filters have any mean: they stay the same to a millionth too', () => {
    fc.assert(
      fc.property(variablesOf, (variables) => {
        const given = variables.subarray(0, SIZE)
        const here = start(variables)
        const found = start(here.parametrisation.fromKernels(given)).kernels()
        given.forEach((value, i) => expect(Math.abs(found[i] - value)).toBeLessThan(1e-6))
      }),
    )
  })

  it('begins with a gain for all filters where one is given', () => {
    const variables = Float32Array.from({ length: VARIABLES }, (_, i) => Math.sin(i * i))
    const { parametrisation } = start(variables)
    const begun = parametrisation.fromKernels(variables.subarray(0, SIZE), 1)
    expect(begun.subarray(0, SIZE)).toEqual(variables.subarray(0, SIZE))
    expect(begun.subarray(SIZE, MEANS)).toEqual(new Float32Array(12).fill(1))
    expect(begun.subarray(MEANS)).toEqual(new Float32Array(12))
  })

  it('leaves a filter without direction at 0, and does not divide by it', () => {
    const here = start(new Float32Array(VARIABLES).fill(1, 0, MEANS))
    expect(here.kernels().subarray(0, 12 * 9)).toEqual(new Float32Array(12 * 9))
    expect(here.gradient(new Float32Array(SIZE).fill(1)).every(Number.isFinite)).toBe(true)
  })
})

describe('NesterovSgd on standardised kernels', () => {
  const begin = (variables: Float32Array, velocity: Float32Array) => {
    const arena = new Arena(SIZE)
    const sgd = new NesterovSgd(arena, variables, velocity, {
      ...{ momentum: 0.9, nesterov: true, weightDecay: 0.1, clipNorm: 0, biasRate: 2 },
      decayed: [...kernels, { offset: LAST, size: 8 }].map(({ offset, size }) => [offset, size] as const),
      parametrisation: new Standardised(arena, kernels),
    })
    return { arena, sgd }
  }
  /** That of a kernel or bias, a gain of 1, a mean of 0. */
  const value = (i: number, v: number) => (i < SIZE ? v : i < MEANS ? 1 : 0)
  const variables = Float32Array.from({ length: VARIABLES }, (_, i) => value(i, Math.sin(i * i)))
  const kernelGradient = Float32Array.from({ length: SIZE }, (_, i) => Math.cos(i * i))

  it('moves the variables by their gradient, and decays those of kernels alone', () => {
    const { arena, sgd } = begin(variables, new Float32Array(VARIABLES))
    const gradient = start(variables).gradient(kernelGradient)
    const bias = (i: number) => (i >= 12 * 9 && i < 12 * 9 + 9) || (i >= LAST - 3 && i < LAST)
    const done: number[][] = []
    sgd.update(arena.hold(kernelGradient), 4, 0.01, (...part) => done.push(part))
    expect(done).toEqual([[0, SIZE]])
    expect(sgd.variables.subarray(MEANS)).toEqual(variables.subarray(MEANS))
    sgd.variables.subarray(0, MEANS).forEach((value, i) => {
      const rate = bias(i) ? 0.02 : 0.01
      const decay = bias(i) || i >= SIZE ? 0 : 0.1
      const push = rate * (gradient[i] / 4 + decay * variables[i])
      expect(value).toBeCloseTo(variables[i] - 1.9 * push, 6)
      expect(sgd.velocity[i]).toBeCloseTo(-push, 7)
    })
    expect([...sgd.parameters]).toEqual([...start(sgd.variables.slice()).kernels()])
    expect(sgd.isFinite()).toBe(true)
  })

  it('lowers a cost of the kernels', () => {
    const { arena, sgd } = begin(variables, new Float32Array(VARIABLES))
    const gradient = arena.take()
    const target = formula(Float32Array.from({ length: VARIABLES }, (_, i) => value(i, Math.cos(3 * i * i))))
    const cost = () => sgd.parameters.reduce((sum, value, i) => sum + (value - target[i]) ** 2, 0)
    const before = cost()
    for (let step = 0; step < 200; step++) {
      gradient.values.set(sgd.parameters.map((value, i) => value - target[i]))
      sgd.update(gradient, 1, 0.02)
    }
    expect(cost()).toBeLessThan(before / 50)
  })

  it('goes on from its state to the same bits', () => {
    const [one, other] = [0, 1].map(() => begin(variables, new Float32Array(VARIABLES)))
    const step = ({ arena, sgd }: typeof one) => {
      const gradient = arena.hold(kernelGradient)
      sgd.update(gradient, 1, 0.1)
      arena.give(gradient)
    }
    step(one)
    other.sgd.restore(one.sgd.variables, one.sgd.velocity)
    expect(other.sgd.parameters).toEqual(one.sgd.parameters)
    step(one)
    step(other)
    expect(other.sgd.variables).toEqual(one.sgd.variables)
    expect(other.sgd.parameters).toEqual(one.sgd.parameters)
  })

  it('sees a number that is not finite', () => {
    const { arena, sgd } = begin(variables, new Float32Array(VARIABLES))
    sgd.update(arena.hold(kernelGradient.with(3, Infinity)), 1, 0.1)
    expect(sgd.isFinite()).toBe(false)
  })
})
