import { Arena } from '@convoy/arena'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Basis, type BasisKernel } from './basis.ts'
import { Muon, type MuonKernel } from './muon.ts'
import { plain } from './parametrisation.ts'

const ROWS = 6
const SIZE = 4 + ROWS * 5 + 7
const CUTS = [4, 4 + ROWS * 5]
const reflection = Array.from({ length: ROWS }, (_, i) => Math.sin(i * i + 1))
const squares = reflection.reduce((sum, value) => sum + value * value, 0)
const kernel: BasisKernel = {
  ...{ offset: 4, filters: 5, lengths: [3, 2, 1, 0.5, 0.25, 10] },
  directions: reflection.map((a, i) => reflection.map((b, j) => Number(i === j) - (2 * a * b) / squares)),
}

const numbers = fc
  .array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: SIZE, maxLength: SIZE })
  .map((values) => Float32Array.from(values))
const inner = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i], 0)

function start() {
  const arena = new Arena(SIZE)
  const basis = new Basis(SIZE, kernel, CUTS)
  const all = (method: 'kernels' | 'gradient', values: Float32Array) => {
    const [from, into] = [arena.hold(values), arena.take()]
    basis.parts.forEach((_, part) => {
      if (method === 'kernels') basis.kernels(from, into, part)
      else basis.gradient(from, from, into, part)
    })
    return into.values.slice()
  }
  return { arena, basis, all }
}

describe('Basis', () => {
  it('adds up basis vectors, and leaves all that is not of the kernel', () => {
    const { all } = start()
    const variables = new Float32Array(SIZE).fill(9)
    variables.fill(0, 4, 4 + ROWS * 5)
    // Filter 2 is twice the first vector and once the last.
    variables[4 + 2] = 2
    variables[4 + 5 * 5 + 2] = 1
    const found = all('kernels', variables)
    found.forEach((value, i) => {
      const [row, filter] = [Math.floor((i - 4) / 5), (i - 4) % 5]
      if (i < 4 || i >= 4 + ROWS * 5) expect(value).toBe(9)
      else if (filter !== 2) expect(value).toBe(0)
      else expect(value).toBeCloseTo(2 * 3 * kernel.directions[0][row] + 10 * kernel.directions[5][row], 5)
    })
  })

  it('takes kernels back', () => {
    fc.assert(
      fc.property(numbers, (variables) => {
        const { basis, all } = start()
        const found = basis.fromKernels(all('kernels', variables))
        found.forEach((value, i) => expect(Math.abs(value - variables[i])).toBeLessThan(1e-5))
      }),
    )
  })

  it('has the gradient of what it makes: g·w(v) = (gradient by v)·v', () => {
    fc.assert(
      fc.property(numbers, numbers, (variables, gradient) => {
        const { all } = start()
        const [left, right] = [
          inner(gradient, all('kernels', variables)),
          inner(all('gradient', gradient), variables),
        ]
        expect(Math.abs(left - right)).toBeLessThan(1e-4)
      }),
    )
  })

  it('has Muon move the coordinates, and the network compute with the kernels', () => {
    const { arena, basis, all } = start()
    const kernels: MuonKernel[] = [
      { offset: 4, size: ROWS * 5, filters: 5, rate: 1, scale: 1, centred: false, held: true },
    ]
    const options = { kernels, momentum: 0.9, iterations: 5, clipNorm: 0 }
    const values = Float32Array.from({ length: SIZE }, (_, i) => Math.sin(1000 * i + 1))
    const muon = new Muon(arena, values, new Float32Array(SIZE), { ...options, parametrisation: basis })
    muon.update(arena.hold(values), 1, 0.1)
    // The same by hand: the gradient by the coordinates moves them without a basis.
    const other = new Arena(SIZE)
    const coordinates = new Muon(other, values, new Float32Array(SIZE), {
      ...options,
      parametrisation: plain(SIZE, CUTS),
    })
    coordinates.update(other.hold(all('gradient', values)), 1, 0.1)
    expect(muon.variables).toEqual(coordinates.variables)
    expect(muon.parameters).toEqual(all('kernels', muon.variables.slice()))
  })
})
