import { ConvoyError } from '@convoy/errors'
import { Arena, type Slot } from '@convoy/arena'
import { decode, encodedBytes, Encoder, type Encoding } from './encoding.ts'
import { isNode, split } from './nodes.ts'
import { stretchOf, type Portion } from './portion.ts'

/** What is summed besides the gradient. The loss is a float64 and takes the same tree. */
export interface Totals {
  readonly loss: number
  readonly correct: number
  readonly count: number
}

/** A node's sum. */
export interface Sum extends Totals {
  readonly gradient: Slot
}

function join(left: Totals, right: Totals): Totals {
  return {
    loss: left.loss + right.loss,
    correct: left.correct + right.correct,
    count: left.count + right.count,
  }
}

/** What the sums on one side of the cut are at. */
interface Side {
  /** Its elements. */
  readonly first: number
  readonly end: number
  readonly taken: boolean[]
  /** The totals of nodes that are whole here. Those before the cut are the last to come, and have them. */
  readonly sums: Map<string, Totals>
}

/** Where a node's sum lies, and on how many sides something does. */
interface Place {
  readonly slot: Slot
  sides: number
}

const NONE: Totals = { loss: 0, correct: 0, count: 0 }
const nameOf = (lo: number, hi: number) => `${lo}-${hi}`

/**
 * Nodes of so many leaves (a power of two; fewer at the ragged end) are rounded to what a wire holds, since that is what may travel there.
 * It is done to those too that are put together elsewhere.
 */
export interface Rounding {
  readonly encoding: Encoding
  readonly leaves: number
  /** Of the run. */
  readonly seed: number
}

/**
 * Finishes the tree: takes whole nodes in any order, adds siblings as soon as both are there, and ends with the root.
 * Since the tree is fixed, so are the additions and their order: the bits do not depend on who sent what, or when.
 *
 * A node may come in two frames, the numbers behind the cut first. Those are summed while the others are still computed.
 */
export class ReductionTree {
  readonly #arena: Arena
  readonly #rounding: Rounding | undefined
  readonly #encoder: Encoder
  readonly #cut: number
  /** That behind the cut, where there is one, and then that before it. */
  readonly #sides: readonly Side[]
  /** By the first leaf of the node whose sum is there. */
  readonly #places = new Map<number, Place>()
  #leaves = 0
  #step = 0
  #first = 0

  /**
   * @param arena Where it adds; gradients have its size.
   * @param cut Which number is the first of those that may come first; 0 where a node comes as a whole. Not for `int8`.
   */
  constructor(arena: Arena, rounding?: Rounding, cut = 0) {
    this.#arena = arena
    this.#rounding = rounding
    this.#encoder = new Encoder(arena.size)
    this.#cut = cut
    const portions: readonly Portion[] = cut > 0 ? ['tail', 'head'] : ['whole']
    this.#sides = portions.map((portion) => {
      const [first, end] = stretchOf(portion, cut, arena.size)
      return { first, end, taken: [], sums: new Map<string, Totals>() }
    })
  }

  /**
   * Starts over with a batch of so many leaves, that of a step.
   *
   * @param first Where this is a node of a larger tree: the number of its first leaf there, by which it is rounded.
   */
  begin(leaves: number, step = 0, first = 0): void {
    this.#step = step
    this.#first = first
    for (const { slot } of this.#places.values()) this.#arena.give(slot)
    this.#places.clear()
    this.#leaves = leaves
    for (const { taken, sums } of this.#sides) {
      sums.clear()
      taken.length = leaves
      taken.fill(false)
    }
  }

  /** How the sum of a node travels: rounded, or as it is. */
  encoding(lo: number, hi: number): Encoding {
    const rounding = this.#rounding
    const rounded =
      rounding && lo % rounding.leaves === 0 && hi === Math.min(lo + rounding.leaves, this.#leaves)
    return rounded ? rounding.encoding : 'float32'
  }

  /**
   * Takes the sum of node [lo, hi), or a portion of it; the gradient is copied. Of what is behind the cut the first to come is taken,
   * since whoever computed it, it is the same.
   *
   * @param gradient In the node's `encoding`, at a place that 8 divides.
   * @param totals Left out with a tail, which has none.
   * Throws E_NOT_ASKED where that is no node, or overlaps with what was taken, E_GRADIENT where the gradient has
   * another size, or what is before the cut comes first, and E_NOT_FINITE where it holds NaN or Inf; then nothing is taken.
   */
  accept(lo: number, hi: number, gradient: Uint8Array, totals = NONE, portion: Portion = 'whole'): void {
    this.#checkNode(lo, hi)
    const encoding = this.encoding(lo, hi)
    const [first, end] = stretchOf(portion, this.#cut, this.#arena.size)
    const bytes = encodedBytes(encoding, end - first)
    if (gradient.byteLength !== bytes)
      throw unusable(`a gradient has ${gradient.byteLength} bytes instead of ${bytes}`)
    const [last] = this.#sides.slice(-1)
    const had = this.#cut > 0 && this.#has(this.#sides[0], lo, hi)
    if (portion === 'tail' && had) return
    if (portion !== 'tail') this.#checkNew(last, lo, hi)
    if (portion === 'head' && !had) throw unusable('the end of a gradient did not come before its beginning')
    // What is behind the cut may have come from another worker, and been summed.
    const until = had ? this.#cut : end
    const place = this.#places.get(lo) ?? { slot: this.#arena.take(), sides: 0 }
    const prefix = gradient.subarray(0, encodedBytes(encoding, until - first))
    decode(encoding, prefix, place.slot.values.subarray(first, until))
    if (!this.#arena.isFinite(place.slot, first, until)) {
      if (place.sides === 0) this.#arena.give(place.slot)
      throw new ConvoyError(
        'E_NOT_FINITE',
        'a gradient holds NaN or Inf',
        'Check the memory and the engine of that machine.',
      )
    }
    this.#places.set(lo, place)
    const sides = this.#sides.filter((side) => first <= side.first && side.end <= until)
    place.sides += sides.length
    for (const side of sides) {
      side.taken.fill(true, lo, hi)
      side.sums.set(nameOf(lo, hi), side === last ? totals : NONE)
      this.#reduce(side, lo, hi)
    }
  }

  #checkNode(lo: number, hi: number): void {
    if (isNode(lo, hi, this.#leaves)) return
    throw new ConvoyError('E_NOT_ASKED', `[${lo}, ${hi}) is not a node of ${this.#leaves} leaves`, 'Nothing.')
  }

  /** Whether all leaves of a node were taken; throws E_NOT_ASKED where just some were. */
  #has(side: Side, lo: number, hi: number): boolean {
    const missing = side.taken.indexOf(false, lo)
    if (missing < 0 || missing >= hi) return true
    this.#checkNew(side, lo, hi)
    return false
  }

  /** Throws E_NOT_ASKED where a leaf of a node was taken. */
  #checkNew({ taken }: Side, lo: number, hi: number): void {
    const leaf = taken.indexOf(true, lo)
    if (leaf < 0 || leaf >= hi) return
    throw new ConvoyError('E_NOT_ASKED', `leaf ${leaf} of [${lo}, ${hi}) was taken already`, 'Nothing.')
  }

  get complete(): boolean {
    return this.#sides.at(-1)!.sums.has(nameOf(0, this.#leaves))
  }

  /** Whether the root's sum is there from the cut on; that of `result` then has it. */
  get tailComplete(): boolean {
    return this.#cut > 0 && this.#sides[0].sums.has(nameOf(0, this.#leaves))
  }

  /** Where the root's sum lies, once it is complete, or the part of it that is. Valid until the next `begin`. */
  get gradient(): Slot {
    return this.#places.get(0)!.slot
  }

  /** The root's sum, once complete. Valid until the next `begin`. */
  result(): Sum {
    return { gradient: this.gradient, ...this.#sides.at(-1)!.sums.get(nameOf(0, this.#leaves))! }
  }

  /** Joins siblings upwards from a node that has just become whole. */
  #reduce(side: Side, lo: number, hi: number): void {
    const { sums, first, end } = side
    // The path from the root tells each ancestor; the tree is shallow.
    const path: (readonly [number, number])[] = []
    let [from, to] = [0, this.#leaves]
    while (from !== lo || to !== hi) {
      path.push([from, to])
      const middle = split(from, to)
      if (hi <= middle) to = middle
      else from = middle
    }
    for (let parent = path.pop(); parent; parent = path.pop()) {
      const middle = split(...parent)
      const names = [nameOf(parent[0], middle), nameOf(middle, parent[1])] as const
      const [left, right] = names.map((name) => sums.get(name))
      if (!left || !right) return
      for (const name of names) sums.delete(name)
      const { slot } = this.#places.get(parent[0])!
      this.#arena.add(slot, this.#places.get(middle)!.slot, first, end)
      this.#leave(middle)
      this.#round(parent, slot.values.subarray(first, end))
      sums.set(nameOf(...parent), join(left, right))
    }
  }

  /** What lay here on one side was added to its sibling. */
  #leave(leaf: number): void {
    const place = this.#places.get(leaf)!
    if (--place.sides > 0) return
    this.#places.delete(leaf)
    this.#arena.give(place.slot)
  }

  /** Rounds a node that was put together here, as it is where it travels. */
  #round([lo, hi]: readonly [number, number], values: Float32Array): void {
    const encoding = this.encoding(lo, hi)
    if (encoding === 'float32') return
    const { seed } = this.#rounding!
    const first = this.#first
    const key = { seed, step: this.#step, lo: first + lo, hi: first + hi }
    this.#encoder.round(encoding, values, key)
  }
}

function unusable(what: string): ConvoyError {
  return new ConvoyError('E_GRADIENT', what, 'Check the memory and the engine of that machine.')
}

/** One frame of `NodeSummer`'s stack: a node whose sum is whole. */
interface Whole extends Sum {
  readonly lo: number
  readonly hi: number
}

/**
 * A worker's part of the tree: sums the leaves of one node as they are computed, left to right, with about log2 as many
 * slots as leaves. Reused for every node.
 */
export class NodeSummer {
  readonly #arena: Arena
  readonly #stack: Whole[] = []
  #lo = 0
  #hi = 0
  #next = 0
  #slot: Slot | undefined
  /** Up to which number of a gradient the next push adds. */
  #until: number

  /**
   * @param size How many numbers a gradient has.
   * @param arena Where it adds, of that size; one of its own where left out.
   */
  constructor(size: number, arena = new Arena(size)) {
    this.#arena = arena
    this.#until = arena.size
  }

  /** Starts on node [lo, hi). */
  begin(lo: number, hi: number): void {
    for (const { gradient } of this.#stack) this.#arena.give(gradient)
    this.#stack.length = 0
    this.#lo = this.#next = lo
    this.#hi = hi
    this.#until = this.#arena.size
  }

  /** Where the next leaf's gradient is to be written. */
  buffer(): Float32Array {
    this.#slot ??= this.#arena.take()
    return this.#slot.values
  }

  /**
   * The last leaf's gradient is in `buffer()` from `cut` on, and the rest of it follows by `push`.
   *
   * @returns The node's sum from `cut` on, which stays where it is.
   */
  joinTail(cut: number): Float32Array {
    let whole = this.#slot!
    for (const { gradient } of this.#stack.toReversed()) {
      this.#arena.add(gradient, whole, cut)
      whole = gradient
    }
    this.#until = cut
    return whole.values.subarray(cut)
  }

  /** The next leaf's gradient is in `buffer()`; these are its totals. */
  push(loss: number, correct: number, count: number): void {
    const gradient = this.#slot!
    this.#slot = undefined
    let whole: Whole = { lo: this.#next, hi: ++this.#next, gradient, loss, correct, count }
    for (let left = this.#stack.at(-1); left && this.#siblings(left, whole); left = this.#stack.at(-1)) {
      this.#stack.pop()
      this.#arena.add(left.gradient, whole.gradient, 0, this.#until)
      this.#arena.give(whole.gradient)
      whole = { lo: left.lo, hi: whole.hi, gradient: left.gradient, ...join(left, whole) }
    }
    this.#stack.push(whole)
  }

  /** The node's sum, after its last leaf. Valid until the next `begin`. */
  result(): Sum {
    return this.#stack[0]
  }

  /** Whether two neighbours are the halves of one node below [lo, hi). */
  #siblings(left: Whole, right: Whole): boolean {
    let [from, to] = [this.#lo, this.#hi]
    while (to - from > 1) {
      if (from === left.lo && to === right.hi) return split(from, to) === left.hi
      const middle = split(from, to)
      if (right.hi <= middle) to = middle
      else if (left.lo >= middle) from = middle
      else return false
    }
    return false
  }
}
