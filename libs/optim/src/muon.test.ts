import { Arena } from '@convoy/arena'
import { describe, expect, it } from 'vitest'
import { Muon, normaliseFilters, type MuonKernel, type MuonOptions } from './muon.ts'

/** 27 rows and 12 filters, 18 rows and 9, 9 rows and 20 (more filters than rows), 20 rows and 3: with a bias for each filter. */
const shapes = [
  [27, 12],
  [18, 9],
  [9, 20],
  [20, 3],
] as const
let end = 0
const kernels = shapes.map(([rows, filters], i): MuonKernel => {
  const [offset, size] = [end, rows * filters]
  end += size + filters
  return {
    ...{ offset, size, filters, rate: [0.5, 1, 1, 0.4][i], scale: [1, 1.7, 1.7, 1][i] },
    ...{ centred: i === 1 || i === 2, held: i < 3 },
  }
})
const SIZE = end
const options: MuonOptions = { kernels, momentum: 0.9, iterations: 5, clipNorm: 0, biasRate: 0.6 }

const numbers = (seed: number) =>
  Float32Array.from({ length: SIZE }, (_, i) => Math.sin(1e4 * (i + 1) * (seed + 1)))
/** The sum of a batch's gradients, one that depends on the parameters. */
const gradientOf = (parameters: Float32Array, step: number) =>
  numbers(step + 7).map((value, i) => 3 * value + parameters[i])

function start(change: Partial<MuonOptions> = {}) {
  const arena = new Arena(SIZE)
  const parameters = numbers(0)
  normaliseFilters(parameters, kernels)
  const muon = new Muon(arena, parameters, new Float32Array(SIZE), { ...options, ...change })
  const slot = arena.take()
  const update = (gradient: Float32Array, rate: number, done?: (first: number, end: number) => void) => {
    slot.values.set(gradient)
    return muon.update(slot, 4, rate, done)
  }
  return { muon, update, parameters }
}
type Started = ReturnType<typeof start>

function steps({ muon, update }: Started, from: number, to: number): void {
  for (let step = from; step < to; step++) update(gradientOf(muon.parameters, step), 0.05 / (1 + step))
}

/** The whole rule in float64, each kernel as a list of columns, Newton–Schulz on the matrix itself. */
class Reference {
  readonly w: Float64Array
  readonly m = new Float64Array(SIZE)

  constructor(parameters: Float32Array) {
    this.w = Float64Array.from(parameters)
  }

  update(gradientSum: Float32Array, rate: number): void {
    const g = Float64Array.from(gradientSum, (value) => value / 4)
    const ahead = (i: number) => {
      this.m[i] = 0.9 * this.m[i] + g[i]
      return g[i] + 0.9 * this.m[i]
    }
    for (const { offset, size, filters, rate: factor, scale, centred, held } of kernels) {
      const rows = size / filters
      const places = Array.from({ length: filters }, (_, j) =>
        Array.from({ length: rows }, (_, row) => offset + row * filters + j),
      )
      for (const column of places) {
        const mean = column.reduce((sum, i) => sum + g[i], 0) / rows
        if (centred) for (const i of column) g[i] -= mean
      }
      const u = newtonSchulz(places.map((column) => column.map(ahead)))
      const step = rate * factor * scale * Math.sqrt(Math.max(1, filters / rows))
      const pushes = u.flat()
      places.flat().forEach((i, k) => (this.w[i] -= step * pushes[k]))
      const norm = Math.hypot(...places.flat().map((i) => this.w[i]))
      if (held) for (const i of places.flat()) this.w[i] *= (scale * Math.sqrt(filters)) / norm
      const bias = Array.from({ length: filters }, (_, j) => offset + size + j)
      const push = bias.map(ahead)
      const rms = Math.sqrt(push.reduce((sum, value) => sum + value * value, 0) / filters)
      bias.forEach((i, j) => (this.w[i] -= (0.6 * rate * push[j]) / rms))
    }
  }
}

function newtonSchulz(columns: readonly number[][]): number[][] {
  const norm = Math.hypot(...columns.flat())
  let x = columns.map((column) => column.map((value) => value / norm))
  const inner = (a: readonly number[], b: readonly number[]) =>
    a.reduce((sum, value, i) => sum + value * b[i], 0)
  for (let i = 0; i < 5; i++) {
    const gram = x.map((a) => x.map((b) => inner(a, b)))
    const p = gram.map((row) => row.map((value, k) => -4.775 * value + 2.0315 * inner(row, gram[k])))
    x = x.map((column, j) =>
      column.map((value, row) => x.reduce((sum, other, k) => sum + p[j][k] * other[row], 3.4445 * value)),
    )
  }
  return x
}

describe('Muon', () => {
  it('is the rule, worked out in float64, for ten steps', () => {
    const started = start()
    const { muon, update, parameters } = started
    const reference = new Reference(parameters)
    for (let step = 0; step < 10; step++) {
      const gradient = gradientOf(muon.parameters, step)
      update(gradient, 0.05)
      reference.update(gradient, 0.05)
      const apart = (a: Float32Array, b: Float64Array) =>
        Math.max(...a.map((value, i) => Math.abs(value - b[i])))
      expect(apart(muon.parameters, reference.w)).toBeLessThan(2e-4)
      expect(apart(muon.velocity, reference.m)).toBeLessThan(1e-5)
    }
    // It has gone far by then.
    expect(Math.max(...muon.parameters.map((value, i) => Math.abs(value - parameters[i])))).toBeGreaterThan(
      0.2,
    )
  })

  it('holds the norm of all kernels but the last, and the mean of filters that are centred', () => {
    const started = start()
    steps(started, 0, 10)
    kernels.forEach(({ offset, size, filters, scale, held, centred }) => {
      const kernel = started.muon.parameters.subarray(offset, offset + size)
      const norm = Math.hypot(...kernel)
      if (held) expect(norm / (scale * Math.sqrt(filters))).toBeCloseTo(1, 6)
      else expect(norm).not.toBeCloseTo(scale * Math.sqrt(filters), 1)
      for (let j = 0; j < filters; j++) {
        const sum = kernel.reduce((sum, value, i) => (i % filters === j ? sum + value : sum), 0)
        if (centred) expect(Math.abs(sum)).toBeLessThan(1e-5)
      }
    })
  })

  it('has the same bits in another run, and after going on from a state in between', () => {
    const [one, other] = [start(), start()]
    steps(one, 0, 10)
    steps(other, 0, 4)
    const resumed = start()
    resumed.muon.restore(other.muon.variables, other.muon.velocity)
    steps(resumed, 4, 10)
    steps(other, 4, 10)
    for (const { muon } of [other, resumed]) {
      expect(muon.parameters).toEqual(one.muon.parameters)
      expect(muon.velocity).toEqual(one.muon.velocity)
    }
  })

  it('does not know how long gradients are: to the bit, where powers of two are between', () => {
    const [one, four] = [start(), start()]
    for (let step = 0; step < 3; step++) {
      one.update(numbers(step), 0.05)
      four.update(
        numbers(step).map((value) => 4 * value),
        0.05,
      )
    }
    expect(four.muon.parameters).toEqual(one.muon.parameters)
    expect(four.muon.velocity).toEqual(one.muon.velocity.map((value) => 4 * value))
  })

  it('tells of each layer when it is done, from the front', () => {
    const { muon, update, parameters } = start()
    const told: [number, number][] = []
    update(numbers(1), 0.05, (first, end) => {
      told.push([first, end])
      expect(muon.parameters.subarray(first, end)).not.toEqual(parameters.subarray(first, end))
      expect(muon.parameters.subarray(end)).toEqual(parameters.subarray(end))
    })
    expect(told).toEqual(kernels.map(({ offset }, i) => [offset, kernels[i + 1]?.offset ?? SIZE]))
  })

  it('moves nothing by a gradient of 0', () => {
    const { muon, update, parameters } = start()
    update(new Float32Array(SIZE), 0.05)
    muon.parameters.forEach((value, i) => expect(value).toBeCloseTo(parameters[i], 6))
  })

  it('differs by the number of iterations, and by the momentum', () => {
    const found = [start(), start({ iterations: 3 }), start({ momentum: 0.5 })].map((started) => {
      steps(started, 0, 2)
      return started.muon.parameters
    })
    expect(found[1]).not.toEqual(found[0])
    expect(found[2]).not.toEqual(found[0])
  })
})

describe('#normaliseFilters', () => {
  it('has filters without a mean where they are centred, and of length c where they are held', () => {
    const { parameters } = start()
    kernels.forEach(({ offset, size, filters, scale, centred, held }) => {
      for (let j = 0; j < filters; j++) {
        const filter = parameters.subarray(offset, offset + size).filter((_, i) => i % filters === j)
        const sum = filter.reduce((sum, value) => sum + value, 0)
        if (centred) expect(sum).toBeCloseTo(0, 5)
        if (held) expect(Math.hypot(...filter) / scale).toBeCloseTo(1, 6)
        else expect(filter[0]).toBe(numbers(0)[offset + j])
      }
      const bias = [offset + size, offset + size + filters] as const
      expect(parameters.subarray(...bias)).toEqual(numbers(0).subarray(...bias))
    })
  })

  it('leaves a filter of zeros', () => {
    const zeros = new Float32Array(SIZE)
    normaliseFilters(zeros, kernels)
    expect(zeros).toEqual(new Float32Array(SIZE))
  })
})
