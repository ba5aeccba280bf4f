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
})
