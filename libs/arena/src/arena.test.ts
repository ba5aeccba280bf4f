import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Arena } from './arena.ts'

describe('Arena', () => {
  /** Numbers of every kind, as raw bits. */
  const numbers = fc.uint32Array({ minLength: 1, maxLength: 70 }).map((bits) => new Float32Array(bits.buffer))

  it('adds as JavaScript does, and sees what is not finite, while it grows', () => {
    fc.assert(
      fc.property(numbers, fc.nat(200), (left, shift) => {
        const right = left.map((_, i) => left[(i + shift) % left.length])
        const arena = new Arena(left.length)
        const slots = Array.from({ length: 3 }, () => arena.take())
        slots[0].values.set(left)
        slots[2].values.set(right)
        expect(arena.isFinite(slots[0])).toBe(left.every(Number.isFinite))
        arena.add(slots[0], slots[2])
        expect(slots[0].values).toEqual(left.map((value, i) => value + right[i]))
        expect(slots[2].values).toEqual(right)
        expect(slots[1].values).toEqual(new Float32Array(left.length))
      }),
    )
    // More than a page in all: the memory moves under the first slots.
    const arena = new Arena(10_000)
    const slots = Array.from({ length: 9 }, (_, i) => {
      const slot = arena.take()
      slot.values.fill(i)
      return slot
    })
    for (const right of slots.slice(1)) arena.add(slots[0], right)
    expect(slots[0].values).toEqual(new Float32Array(10_000).fill(36))
    arena.give(slots[3])
    expect(arena.take()).toBe(slots[3])
  })

  it('adds some elements, and sees those that are not finite, and leaves the others alone', () => {
    fc.assert(
      fc.property(numbers, fc.nat(70), fc.nat(70), (left, a, b) => {
        const [first, end] = [a, b].map((at) => Math.min(at, left.length)).sort((x, y) => x - y)
        const right = left.map((_, i) => left[left.length - 1 - i])
        const arena = new Arena(left.length)
        const [one, two] = [arena.hold(left), arena.hold(right)]
        expect(arena.isFinite(one, first, end)).toBe(left.subarray(first, end).every(Number.isFinite))
        arena.add(one, two, first, end)
        expect(one.values).toEqual(left.map((x, i) => (first <= i && i < end ? x + right[i] : x)))
      }),
    )
  })

  it('has the norm of float64 sums, whatever the size', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: -1000, max: 1000 }), { minLength: 1, maxLength: 70 }),
        (list) => {
          const arena = new Arena(list.length)
          // Sums of squares of integers are exact in any order.
          const expected = Math.sqrt(list.reduce((sum, value) => sum + value * value, 0))
          expect(arena.norm(arena.hold(Float32Array.from(list)))).toBe(expected)
        },
      ),
    )
  })

  it.each([true, false])('updates with momentum to the bits of the formula (Nesterov: %s)', (nesterov) => {
    const numbers = fc.float({ noNaN: true, min: -100, max: 100 })
    const rows = fc.array(fc.tuple(numbers, numbers, numbers), { minLength: 1, maxLength: 40 })
    const share = fc.double({ noNaN: true, min: 0, max: 1 })
    fc.assert(
      fc.property(
        rows,
        fc.nat(),
        fc.nat(),
        share,
        share,
        share,
        share,
        (list, a, b, momentum, rate, scale, decay) => {
          const [first, end] = [a % (list.length + 1), b % (list.length + 1)].sort((x, y) => x - y)
          const arena = new Arena(list.length)
          const [w, v, g] = [0, 1, 2].map((i) => arena.hold(Float32Array.from(list, (row) => row[i])))
          arena.update(w, v, g, first, end, { momentum, nesterov, rate, scale, decay })
          list.forEach(([oldW, oldV, gradient], i) => {
            const push = rate * (gradient * scale + decay * oldW)
            const newV = Math.fround(momentum * oldV - push)
            const newW = Math.fround(nesterov ? oldW + momentum * newV - push : oldW + newV)
            const touched = i >= first && i < end
            expect(w.values[i]).toBe(touched ? newW : oldW)
            expect(v.values[i]).toBe(touched ? newV : oldV)
          })
          expect([...g.values]).toEqual(list.map((row) => row[2]))
        },
      ),
    )
  })

  it('gives a slot that was given back to the next of its size', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), (size) => {
        const arena = new Arena(3)
        const slot = arena.hold(new Float32Array(size))
        arena.give(slot)
        if (size !== 3) expect(arena.take()).not.toBe(slot)
        expect(arena.take(size)).toBe(slot)
      }),
    )
  })

  describe('works on the columns of a matrix', () => {
    const number = fc.float({ noNaN: true, min: -100, max: 100 })
    /** x, y and three numbers a column; a matrix that begins anywhere, with numbers before and behind it. */
    const cases = fc
      .tuple(fc.nat(9), fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 21 }))
      .chain(([first, rows, columns]) => {
        const size = first + rows * columns + 7
        const numbers = (length: number) => fc.array(number, { minLength: length, maxLength: length })
        return fc
          .tuple(numbers(size), numbers(size), numbers(columns), numbers(columns), numbers(columns))
          .map(([x, y, a, b, c]) => ({ matrix: { first, rows, columns }, size, x, y, a, b, c }))
      })
    type Case = typeof cases extends fc.Arbitrary<infer T> ? T : never

    /** Runs `body` on each case with everything in an arena, and with what JavaScript makes of each column. */
    function check(
      body: (
        here: ReturnType<typeof place> & {
          matrix: Case['matrix']
          /** Adds up `term` over a column, from its first row to its last. */
          sums: (term: (x: number, y: number, column: number) => number) => number[]
          /** The whole slot, with `value` for what is in the matrix. */
          filled: (value: (x: number, y: number, column: number) => number) => number[]
        },
      ) => void,
    ): void {
      fc.assert(
        fc.property(cases, (given) => {
          const { matrix, x, y } = given
          const { first, rows, columns } = matrix
          body({
            matrix,
            ...place(given),
            sums: (term) =>
              Array.from({ length: columns }, (_, j) => {
                let sum = 0
                for (let i = first + j; i < first + rows * columns; i += columns) sum += term(x[i], y[i], j)
                return sum
              }),
            filled: (value) =>
              x.map((_, i) =>
                i < first || i >= first + rows * columns
                  ? 5
                  : Math.fround(value(x[i], y[i], (i - first) % columns)),
              ),
          })
        }),
      )
    }

    function place({ size, matrix, x, y, a, b, c }: Case) {
      const arena = new Arena(size)
      const slots = [x, y, new Array<number>(size).fill(5)].map((list) => arena.hold(Float32Array.from(list)))
      const lists = [a, b, c].map((list) => {
        const columns = arena.takeColumns(matrix.columns)
        columns.values.set(list)
        return columns
      })
      return { arena, x: slots[0], y: slots[1], to: slots[2], a: lists[0], b: lists[1], c: lists[2] }
    }

    it('and sums them', () =>
      check(({ arena, matrix, x, a, sums }) => {
        arena.columnSums(x, matrix, a)
        expect([...a.values]).toEqual(sums((value) => value))
      }))

    it('and sums squares about a center', () =>
      check(({ arena, matrix, x, a, b, sums }) => {
        arena.columnSquares(x, matrix, a, b)
        expect([...b.values]).toEqual(sums((value, _, j) => (value - a.values[j]) * (value - a.values[j])))
      }))

    it('and sums products', () =>
      check(({ arena, matrix, x, y, a, b, c, sums }) => {
        arena.columnProducts(x, y, matrix, a, b, c)
        expect([...b.values]).toEqual(sums((value) => value))
        expect([...c.values]).toEqual(sums((left, right, j) => (right - a.values[j]) * left))
      }))

    it('and draws a line or a plane through them', () =>
      check(({ arena, matrix, x, y, to, a, b, c, filled }) => {
        arena.columnLine(x, to, matrix, a, c)
        expect([...to.values]).toEqual(filled((value, _, j) => value * a.values[j] + c.values[j]))
        arena.columnPlane(x, y, to, matrix, a, b, c)
        expect([...to.values]).toEqual(
          filled((left, right, j) => left * a.values[j] + right * b.values[j] + c.values[j]),
        )
      }))
  })

  describe('multiplies matrices', () => {
    const numbers = (length: number, seed: number) =>
      Float32Array.from({ length }, (_, i) => Math.sin(1000 * (i + 1) * (seed + 1)))
    // Rests of every kind, and more rows and columns than are worked on at a time.
    const cases = fc.tuple(
      fc.nat(9),
      fc.oneof(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 90, max: 210 })),
      fc.oneof(fc.integer({ min: 1, max: 25 }), fc.integer({ min: 96, max: 110 })),
      fc.nat(1000),
    )
    const runs = { numRuns: 40 }

    /** Σ left·right in float32 from the first product to the last; NaN where float64 finds a sum that is too far from it. */
    function inner(count: number, left: (k: number) => number, right: (k: number) => number): number {
      let [single, double, size] = [0, 0, 0]
      for (let k = 0; k < count; k++) {
        const product = left(k) * right(k)
        single = Math.fround(single + Math.fround(product))
        double += product
        size += Math.abs(product)
      }
      return Math.abs(single - double) <= count * 2 ** -23 * size ? single : NaN
    }

    it('xᵀ·y below the diagonal, and the same above', () => {
      fc.assert(
        fc.property(cases, ([first, rows, columns, seed]) => {
          const arena = new Arena(first + rows * columns)
          const [x, y] = [0, 1].map((i) => numbers(arena.size, seed + i))
          const to = arena.hold(numbers(columns * columns + 5, seed))
          const expected = to.values.slice()
          for (let i = 0; i < columns; i++) {
            for (let j = 0; j <= i; j++) {
              const at = (k: number) => first + k * columns
              const sum = inner(
                rows,
                (k) => x[at(k) + i],
                (k) => y[at(k) + j],
              )
              expected[i * columns + j] = expected[j * columns + i] = sum
            }
          }
          arena.symmetricProduct(arena.hold(x), arena.hold(y), { first, rows, columns }, to)
          expect(to.values).toEqual(expected)
        }),
        runs,
      )
    })

    it('x·y, whatever lies before and behind', () => {
      fc.assert(
        fc.property(cases, ([first, rows, columns, seed]) => {
          const arena = new Arena(first + rows * columns + 7)
          const [x, y] = [numbers(arena.size, seed), numbers(columns * columns, seed + 1)]
          const to = arena.hold(new Float32Array(arena.size).fill(5))
          const expected = to.values.slice()
          for (let i = 0; i < rows; i++) {
            for (let j = 0; j < columns; j++) {
              expected[first + i * columns + j] = inner(
                columns,
                (k) => x[first + i * columns + k],
                (k) => y[k * columns + j],
              )
            }
          }
          arena.product(arena.hold(x), arena.hold(y), to, { first, rows, columns })
          expect(to.values).toEqual(expected)
        }),
        runs,
      )
    })
  })
})
