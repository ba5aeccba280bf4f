import { Arena } from '@convoy/arena'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { NewtonSchulz } from './orthogonal.ts'

type Rows = readonly (readonly number[])[]

const transpose = (x: Rows) => x[0].map((_, j) => x.map((row) => row[j]))
const times = (x: Rows, y: Rows) => {
  const columns = transpose(y)
  return x.map((row) => columns.map((column) => row.reduce((sum, value, k) => sum + value * column[k], 0)))
}
const combine = (a: number, x: Rows, b: number, y: Rows) =>
  x.map((row, i) => row.map((value, j) => a * value + b * y[i][j]))
const frobenius = (x: Rows) => Math.sqrt(x.flat().reduce((sum, value) => sum + value * value, 0))

/** Newton–Schulz as it is in the paper, in float64. */
function direct(matrix: Rows, iterations: number): Rows {
  const norm = frobenius(matrix)
  let x: Rows = matrix.map((row) => row.map((value) => value / norm))
  for (let i = 0; i < iterations; i++) {
    const gram = times(transpose(x), x)
    x = combine(3.4445, x, 1, times(x, combine(-4.775, gram, 2.0315, times(gram, gram))))
  }
  return x
}

/** So many orthonormal columns, by Gram and Schmidt. */
function orthonormal(rows: number, columns: number, seed: number): Rows {
  const done: number[][] = []
  for (let j = 0; j < columns; j++) {
    let column = Array.from({ length: rows }, (_, i) => Math.sin(1e4 * (i + 1) * (j + 1) + seed))
    for (let pass = 0; pass < 2; pass++) {
      for (const other of done) {
        const along = other.reduce((sum, value, i) => sum + value * column[i], 0)
        column = column.map((value, i) => value - along * other[i])
      }
    }
    const norm = Math.hypot(...column)
    done.push(column.map((value) => value / norm))
  }
  return transpose(done)
}

/** U·Σ·Vᵀ with these singular values. */
function made(rows: number, columns: number, singular: readonly number[], seed: number) {
  const [u, v] = [orthonormal(rows, singular.length, seed), orthonormal(columns, singular.length, seed + 1)]
  const scaled = u.map((row) => row.map((value, i) => value * singular[i]))
  return { u, v, x: times(scaled, transpose(v)) }
}

/** What is made of a matrix that begins at element 3 of its slot. */
function orthogonalised(x: Rows, iterations = 5): Rows {
  const [rows, columns] = [x.length, x[0].length]
  const arena = new Arena(3 + rows * columns)
  const [from, to] = [arena.hold(Float32Array.from([0, 0, 0, ...x.flat()])), arena.take()]
  new NewtonSchulz(arena, columns + 1, iterations).orthogonalise(from, to, { first: 3, rows, columns })
  return x.map((_, i) => Array.from(to.values.subarray(3 + i * columns, 3 + (i + 1) * columns)))
}

const distance = (x: Rows, y: Rows) => Math.max(...combine(1, x, -1, y).flat().map(Math.abs))

describe('NewtonSchulz', () => {
  const sizes = fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 24 }), fc.nat(1000))

  it('is the iteration of the paper, whatever the shape and however many times', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 6 }), ([rows, columns, seed], iterations) => {
        const x = Array.from({ length: rows }, (_, i) =>
          Array.from({ length: columns }, (_, j) =>
            Math.fround(Math.sin(1e4 * (i * columns + j + 1) + seed)),
          ),
        )
        expect(distance(orthogonalised(x, iterations), direct(x, iterations))).toBeLessThan(2e-3)
      }),
    )
  })

  it('is so for singular values from 1 to a millionth, and for none at all', () => {
    fc.assert(
      fc.property(sizes, fc.integer({ min: 1, max: 24 }), ([rows, columns, seed], rank) => {
        const count = Math.min(rows, columns, rank)
        const singular = Array.from({ length: count }, (_, i) => 10 ** (-6 * (i / Math.max(1, count - 1))))
        const { x } = made(rows, columns, singular, seed)
        expect(distance(orthogonalised(x), direct(x, 5))).toBeLessThan(2e-3)
      }),
    )
  })

  it('has singular values near 1 where they were a 600th of the norm, in the same directions', () => {
    const singular = Array.from({ length: 48 }, (_, i) => 1 / (1 + i) ** 1.6)
    const { u, v, x } = made(200, 48, singular, 1)
    const norm = frobenius(x)
    const found = times(times(transpose(u), orthogonalised(x)), v)
    found.forEach((row, i) =>
      row.forEach((value, j) => {
        if (i !== j) expect(Math.abs(value)).toBeLessThan(2e-3)
        else if (singular[i] > norm / 600) {
          expect(value).toBeGreaterThan(0.67)
          expect(value).toBeLessThan(1.21)
        }
      }),
    )
    expect(singular.filter((value) => value > norm / 600).length).toBeGreaterThan(40)
  })

  it('leaves columns of zeros, and a matrix of zeros', () => {
    const { x } = made(20, 9, [1, 0.5, 0.1], 2)
    const holes = x.map((row) => row.map((value, j) => (j % 4 === 1 ? 0 : value)))
    const found = orthogonalised(holes)
    expect(found.flatMap((row) => row.filter((_, j) => j % 4 === 1)).every((value) => value === 0)).toBe(true)
    expect(distance(found, direct(holes, 5))).toBeLessThan(2e-3)
    const zeros = holes.map((row) => row.map(() => 0))
    expect(orthogonalised(zeros)).toEqual(zeros)
  })

  it('does not know the length of a matrix, to the bit where powers of two are between', () => {
    const { x } = made(30, 11, [1, 0.5, 0.1, 0.01], 3)
    for (const factor of [2 ** -60, 0.25, 2 ** 60]) {
      expect(orthogonalised(x.map((row) => row.map((value) => factor * Math.fround(value))))).toEqual(
        orthogonalised(x),
      )
    }
  })
})
