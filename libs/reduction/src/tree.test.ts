import { Arena } from '@convoy/arena'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { roundToBf16, expandBf16 } from './bf16.ts'
import { encodedBytes, Encoder } from './encoding.ts'
import { expandInt8, int8Bytes, Int8Rounding } from './int8.ts'
import { cover, isNode, split, type Node } from './nodes.ts'
import { stretchOf, type Portion } from './portion.ts'
import { NodeSummer, ReductionTree, type Rounding } from './tree.ts'

const SIZE = 3

/** A leaf's gradient whose sums depend on the order in which they are taken. */
const leaf = (i: number) =>
  Float32Array.from({ length: SIZE }, (_, k) => Math.sin(1 + i * 7.3 + k) * 10 ** ((i * 5 + k) % 7))
const lossOf = (i: number) => Math.exp(Math.sin(i))

interface Plain {
  gradient: Float32Array
  /** As it is sent. */
  bytes: Uint8Array
  loss: number
}

const STEP = 7
const encoder = new Encoder(SIZE)
const asBytes = (values: Float32Array) => new Uint8Array(values.slice().buffer)

/** The definition: the recursive sum over `split`, rounded where a block is. */
function plain(lo: number, hi: number, leaves: number, rounding?: Rounding): Plain {
  let sum: Omit<Plain, 'bytes'>
  if (hi - lo === 1) sum = { gradient: leaf(lo), loss: lossOf(lo) }
  else {
    const middle = split(lo, hi)
    const left = plain(lo, middle, leaves, rounding)
    const right = plain(middle, hi, leaves, rounding)
    sum = {
      gradient: left.gradient.map((value, k) => value + right.gradient[k]),
      loss: left.loss + right.loss,
    }
  }
  const { gradient } = sum
  if (!rounding || lo % rounding.leaves !== 0 || hi !== Math.min(lo + rounding.leaves, leaves))
    return { ...sum, bytes: asBytes(gradient) }
  const { encoding, seed } = rounding
  const bytes = new Uint8Array(encodedBytes(encoding, SIZE))
  encoder.encode(encoding, gradient, { seed, step: STEP, lo, hi }, bytes)
  encoder.round(encoding, gradient, { seed, step: STEP, lo, hi })
  return { ...sum, bytes }
}

/** Some way to cut the tree into nodes: each is kept or halved as the bits say. */
function partition(leaves: number, bits: readonly boolean[]): Node[] {
  const nodes: Node[] = []
  let at = 0
  const visit = (lo: number, hi: number) => {
    if (hi - lo === 1 || bits[at++ % bits.length]) {
      nodes.push([lo, hi])
      return
    }
    const middle = split(lo, hi)
    visit(lo, middle)
    visit(middle, hi)
  }
  visit(0, leaves)
  return nodes
}

const leavesArbitrary = fc.integer({ min: 1, max: 40 })
const cutArbitrary = fc.array(fc.boolean(), { minLength: 1, maxLength: 20 })
const orderArbitrary = fc.array(fc.nat(), { minLength: 60, maxLength: 60 })

const shuffled = <T>(values: T[], order: readonly number[]): T[] =>
  values
    .map((value, i) => ({ value, key: order[i] }))
    .sort((a, b) => a.key - b.key)
    .map(({ value }) => value)

describe('the tree', () => {
  it('splits at the largest power of two below the size', () => {
    expect([2, 3, 4, 5, 8, 9, 16].map((size) => split(0, size))).toEqual([1, 2, 2, 4, 4, 8, 8])
    expect(split(8, 11)).toBe(10)
  })

  it('covers a range with the fewest nodes, exactly', () => {
    fc.assert(
      fc.property(leavesArbitrary, fc.nat(40), fc.nat(40), (leaves, a, b) => {
        const lo = Math.min(a, b, leaves)
        const hi = Math.min(Math.max(a, b), leaves)
        const nodes = cover(lo, hi, leaves)
        expect(nodes.flatMap(([from, to]) => Array.from({ length: to - from }, (_, i) => from + i))).toEqual(
          Array.from({ length: hi - lo }, (_, i) => lo + i),
        )
        for (const [from, to] of nodes) expect(isNode(from, to, leaves)).toBe(true)
        // Fewest: no two neighbours make a node together.
        for (let i = 1; i < nodes.length; i++)
          expect(isNode(nodes[i - 1][0], nodes[i][1], leaves)).toBe(false)
      }),
    )
  })

  it('knows what is no node', () => {
    expect(isNode(1, 3, 8)).toBe(false)
    expect(isNode(0, 9, 8)).toBe(false)
    expect(isNode(3, 3, 8)).toBe(false)
    expect(isNode(4, 5, 5)).toBe(true)
  })
})

describe('ReductionTree', () => {
  const blocks = [1, 2, 4].flatMap((leaves) => [
    { encoding: 'bf16' as const, leaves, seed: 1 },
    { encoding: 'int8' as const, leaves, seed: 2 },
  ])

  it.each([{ rounding: undefined }, ...blocks.map((rounding) => ({ rounding }))])(
    'has the same bits for any cut in any order (%j)',
    ({ rounding }) => {
      const tree = new ReductionTree(new Arena(SIZE), rounding)
      fc.assert(
        fc.property(leavesArbitrary, cutArbitrary, orderArbitrary, (leaves, bits, order) => {
          tree.begin(leaves, STEP)
          let nodes = partition(leaves, bits)
          // With rounding, nothing above a block is sent whole.
          if (rounding)
            nodes = nodes.flatMap(([lo, hi]) =>
              hi - lo > rounding.leaves ? partitionBelow(lo, hi, rounding.leaves) : [[lo, hi] as Node],
            )
          for (const [lo, hi] of shuffled(nodes, order)) {
            const { bytes, loss } = plain(lo, hi, leaves, rounding)
            expect(tree.complete).toBe(false)
            tree.accept(lo, hi, bytes, { loss, correct: 1, count: hi - lo })
          }
          const expected = plain(0, leaves, leaves, rounding)
          const result = tree.result()
          expect(tree.complete).toBe(true)
          expect([...result.gradient.values]).toEqual([...expected.gradient])
          expect(result.loss).toBe(expected.loss)
          expect(result.count).toBe(leaves)
          expect(result.correct).toBe(nodes.length)
        }),
      )
    },
  )

  const portions = [undefined, { encoding: 'bf16' as const, leaves: 2, seed: 1 }]
  it.each(portions)(
    'has the same bits whatever comes in two frames, from whom, in what order (%j)',
    (rounding) => {
      fc.assert(
        fc.property(
          ...[
            leavesArbitrary,
            cutArbitrary,
            orderArbitrary,
            fc.integer({ min: 1, max: SIZE - 1 }),
            fc.infiniteStream(fc.nat(5)),
          ],
          (leaves, bits, order, cut, ways) => {
            const tree = new ReductionTree(new Arena(SIZE), rounding, cut)
            tree.begin(leaves, STEP)
            const within = ([lo, hi]: Node) =>
              rounding && hi - lo > 2 ? partitionBelow(lo, hi, 2) : [[lo, hi] as Node]
            const nodes = partition(leaves, bits).flatMap(within)
            const give = (lo: number, hi: number, portion: Portion) => {
              const { bytes, loss } = plain(lo, hi, leaves, rounding)
              const width = bytes.length / SIZE
              const [first, end] = stretchOf(portion, cut, SIZE)
              const payload = bytes.slice(width * first, width * end)
              tree.accept(
                lo,
                hi,
                payload,
                portion === 'tail' ? undefined : { loss, correct: 1, count: hi - lo },
                portion,
              )
            }
            // Some tails come long before, some twice; some nodes are cut on after theirs came, as those of a lost worker.
            const later: Node[] = []
            for (const node of shuffled(nodes, order)) {
              const way = Number(ways.next().value)
              if (way > 1) give(...node, 'tail')
              if (way === 2) give(...node, 'tail')
              const [lo, hi] = node
              if (way === 4 && hi - lo > 1) later.push([lo, split(lo, hi)], [split(lo, hi), hi])
              else later.push(node)
            }
            // What is cut on would be rounded otherwise.
            const all = rounding ? nodes : later
            for (const node of shuffled(all, order)) {
              expect(tree.complete).toBe(false)
              const way = Number(ways.next().value)
              if (way < 3) give(...node, 'whole')
              else {
                give(...node, 'tail')
                give(...node, 'head')
              }
            }
            const expected = plain(0, leaves, leaves, rounding)
            const result = tree.result()
            expect(tree.complete && tree.tailComplete).toBe(true)
            expect([...result.gradient.values]).toEqual([...expected.gradient])
            expect([result.loss, result.count, result.correct]).toEqual([expected.loss, leaves, all.length])
          },
        ),
      )
    },
  )

  it('has the end of the root before its beginning, and refuses beginnings without their end', () => {
    const tree = new ReductionTree(new Arena(SIZE), undefined, 1)
    tree.begin(2)
    const totals = { loss: 1, correct: 0, count: 1 }
    const error = (code: string): unknown => expect.objectContaining({ code })
    const bytes = [leaf(0), leaf(1)].map((values) => asBytes(values))
    expect(() => tree.accept(0, 1, bytes[0].slice(0, 4), totals, 'head')).toThrowError(error('E_GRADIENT'))
    expect(() => tree.accept(0, 1, bytes[0].slice(0, 4), undefined, 'tail')).toThrowError(error('E_GRADIENT'))
    const bad = asBytes(leaf(0).fill(NaN, 1)).slice(4)
    expect(() => tree.accept(0, 1, bad, undefined, 'tail')).toThrowError(error('E_NOT_FINITE'))
    tree.accept(0, 1, bytes[0].slice(4), undefined, 'tail')
    expect(tree.tailComplete).toBe(false)
    tree.accept(1, 2, bytes[1].slice(4), undefined, 'tail')
    expect([tree.tailComplete, tree.complete]).toEqual([true, false])
    expect([...tree.gradient.values.subarray(1)]).toEqual([...plain(0, 2, 2).gradient.subarray(1)])
    tree.accept(1, 2, bytes[1].slice(0, 4), totals, 'head')
    expect(() => tree.accept(1, 2, bytes[1].slice(0, 4), totals, 'head')).toThrowError(error('E_NOT_ASKED'))
    tree.accept(0, 1, bytes[0], totals)
    expect([...tree.result().gradient.values]).toEqual([...plain(0, 2, 2).gradient])
  })

  it('refuses what is no node and what overlaps, and takes nothing then', () => {
    const tree = new ReductionTree(new Arena(SIZE))
    tree.begin(8)
    const totals = { loss: 1, correct: 0, count: 1 }
    tree.accept(0, 2, asBytes(leaf(0)), totals)
    for (const [lo, hi] of [
      [0, 2],
      [0, 1],
      [0, 4],
      [0, 8],
      [1, 3],
      [6, 9],
      [5, 5],
    ]) {
      expect(() => tree.accept(lo, hi, asBytes(leaf(1)), totals)).toThrowError(
        expect.objectContaining({ code: 'E_NOT_ASKED' }),
      )
    }
    tree.accept(2, 4, asBytes(leaf(2)), totals)
    tree.accept(4, 8, asBytes(leaf(4)), totals)
    expect(tree.complete).toBe(true)
  })
})

describe('a gradient that is not usable', () => {
  it.each([NaN, Infinity, -Infinity])(
    'refuses a gradient with %s anywhere, and takes nothing then',
    (value) => {
      const tree = new ReductionTree(new Arena(SIZE))
      tree.begin(1)
      const totals = { loss: 1, correct: 0, count: 1 }
      for (let i = 0; i < SIZE; i++) {
        const gradient = leaf(0)
        gradient[i] = value
        expect(() => tree.accept(0, 1, asBytes(gradient), totals)).toThrowError(
          expect.objectContaining({ code: 'E_NOT_FINITE' }),
        )
      }
      expect(() => tree.accept(0, 1, asBytes(leaf(0)).subarray(4), totals)).toThrowError(
        expect.objectContaining({ code: 'E_GRADIENT' }),
      )
      tree.accept(0, 1, asBytes(leaf(0)), totals)
      expect(tree.complete).toBe(true)
    },
  )
})

function partitionBelow(lo: number, hi: number, block: number): Node[] {
  if (hi - lo <= block) return [[lo, hi]]
  const middle = split(lo, hi)
  return [...partitionBelow(lo, middle, block), ...partitionBelow(middle, hi, block)]
}

describe('NodeSummer', () => {
  it('has the bits of the tree for every node of it', () => {
    const summer = new NodeSummer(SIZE)
    fc.assert(
      fc.property(leavesArbitrary, cutArbitrary, fc.integer({ min: 0, max: SIZE }), (leaves, bits, cut) => {
        for (const [lo, hi] of partition(leaves, bits)) {
          summer.begin(lo, hi)
          for (let i = lo; i < hi; i++) {
            // The last leaf's end may come before its beginning.
            if (i === hi - 1 && cut > 0) {
              summer.buffer().fill(NaN).set(leaf(i).subarray(cut), cut)
              const tail = [...summer.joinTail(cut)]
              expect(tail).toEqual([...plain(lo, hi, leaves).gradient.subarray(cut)])
              summer.buffer().set(leaf(i).subarray(0, cut))
            } else summer.buffer().set(leaf(i))
            summer.push(lossOf(i), 1, 16)
          }
          const expected = plain(lo, hi, leaves)
          const sum = summer.result()
          expect([...sum.gradient.values]).toEqual([...expected.gradient])
          expect(sum.loss).toBe(expected.loss)
          expect(sum.count).toBe(16 * (hi - lo))
          expect(sum.correct).toBe(hi - lo)
        }
      }),
    )
  })
})

describe('bfloat16', () => {
  const bits = (value: number) => new Uint32Array(Float32Array.of(value).buffer)[0]
  const float = (pattern: number) => new Float32Array(Uint32Array.of(pattern).buffer)[0]

  it('rounds to the nearest, ties to even', () => {
    fc.assert(
      fc.property(
        fc.float({ noNaN: true, noDefaultInfinity: true, min: Math.fround(-1e38), max: Math.fround(1e38) }),
        (value) => {
          const [rounded] = roundToBf16(Float32Array.of(value), new Uint16Array(1))
          const below = float((bits(value) & 0xffff0000) >>> 0)
          const above = float(((bits(value) & 0xffff0000) + 0x10000) >>> 0)
          const [toBelow, toAbove] = [Math.abs(value - below), Math.abs(above - value)]
          const even = (bits(value) >>> 16) % 2 === 0
          const expected = toBelow < toAbove || (toBelow === toAbove && even) ? below : above
          expect(expandBf16(Uint16Array.of(rounded), new Float32Array(1))[0]).toBe(expected)
          const inPlace = Float32Array.of(value)
          new Encoder(1).round('bf16', inPlace, { seed: 1, step: 0, lo: 0, hi: 1 })
          expect(inPlace[0]).toBe(expected)
        },
      ),
    )
  })

  it('keeps zeros, infinities and NaN', () => {
    const values = Float32Array.of(0, -0, Infinity, -Infinity, NaN, float(0x7f800001))
    const back = expandBf16(roundToBf16(values, new Uint16Array(6)), new Float32Array(6))
    expect([...back]).toEqual([0, -0, Infinity, -Infinity, NaN, NaN])
  })
})

it('rounds the parts of a node as the whole tree does', () => {
  const size = 40
  const rounding = { encoding: 'int8', leaves: 2, seed: 3 } as const
  const leaf = (n: number) => Float32Array.from({ length: size }, (_, i) => Math.sin(n * size + i))
  const add = (tree: ReductionTree, n: number, at: number) => {
    // The last leaf is rounded by itself.
    const encoding = tree.encoding(at, at + 1)
    const bytes = new Uint8Array(encodedBytes(encoding, size))
    new Encoder(size).encode(encoding, leaf(n), { seed: 3, step: 5, lo: n, hi: n + 1 }, bytes)
    tree.accept(at, at + 1, bytes, { loss: n, correct: 0, count: 1 })
  }
  const whole = new ReductionTree(new Arena(size), rounding)
  whole.begin(11, 5)
  for (let n = 0; n < 11; n++) add(whole, n, n)
  const above = new ReductionTree(new Arena(size), rounding)
  above.begin(11, 5)
  for (const [lo, hi] of [
    [8, 11],
    [0, 4],
    [4, 8],
  ]) {
    const part = new ReductionTree(new Arena(size), rounding)
    part.begin(hi - lo, 5, lo)
    for (let n = lo; n < hi; n++) add(part, n, n - lo)
    const { gradient, ...totals } = part.result()
    above.accept(lo, hi, new Uint8Array(gradient.values.slice().buffer), totals)
  }
  expect(above.result().gradient.values).toEqual(whole.result().gradient.values)
})

describe('eight bits', () => {
  const SIZE = 300
  const rounding = new Int8Rounding(SIZE)
  const rounded = (values: Float32Array, key: readonly [number, ...number[]]) => {
    const bytes = new Uint8Array(int8Bytes(SIZE))
    rounding.round(values, key, bytes)
    return expandInt8(bytes, new Float32Array(SIZE))
  }
  /** Numbers of about this size, of either sign. */
  const numbers = (size: number) =>
    Float32Array.from({ length: SIZE }, (_, i) => size * Math.sin(i * i) * (i < 128 ? 1 : 1e-3))
  const largest = (values: Float32Array) => Math.max(...values.map(Math.abs))

  it('are less than a 127th of the largest of their block away, and as the key says', () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.double({ min: 1e-30, max: 1e30, noNaN: true }), (step, size) => {
        const values = numbers(size)
        const back = rounded(values, [1, step])
        for (const [from, to] of [
          [0, 128],
          [128, 256],
          [256, SIZE],
        ]) {
          const unit = largest(values.subarray(from, to)) / 127
          for (let i = from; i < to; i++) expect(Math.abs(back[i] - values[i])).toBeLessThan(1.0001 * unit)
        }
        expect(rounded(values, [1, step])).toEqual(back)
        expect(rounded(values, [1, step + 1])).not.toEqual(back)
        expect(rounded(values, [2, step])).not.toEqual(back)
      }),
      { numRuns: 20 },
    )
  })

  it('are right on the mean', () => {
    const values = numbers(1)
    const sums = new Float64Array(SIZE)
    const rounds = 2000
    for (let step = 0; step < rounds; step++) rounded(values, [1, step]).forEach((v, i) => (sums[i] += v))
    // The deviation of a mean is at most half a unit by the root of the count; five of them are as good as never exceeded.
    const unit = (i: number) => (i < 128 ? 1 : 1e-3) / 127
    for (let i = 0; i < SIZE; i++)
      expect(Math.abs(sums[i] / rounds - values[i])).toBeLessThan((2.5 * unit(i)) / Math.sqrt(rounds))
  })

  it('keep zeros, and show what is not finite', () => {
    expect(rounded(new Float32Array(SIZE), [1, 1])).toEqual(new Float32Array(SIZE))
    for (const bad of [NaN, Infinity, -Infinity]) {
      const values = numbers(1)
      values[130] = bad
      const back = rounded(values, [1, 1])
      expect(back.subarray(0, 128).every(Number.isFinite)).toBe(true)
      expect(back.subarray(128, 256).every(Number.isFinite)).toBe(false)
    }
  })
})
