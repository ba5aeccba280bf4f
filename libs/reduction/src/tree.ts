import { ConvoyError } from '@convoy/errors'
import { Arena, type Slot } from '@convoy/arena'
import { decode, encodedBytes, Encoder, type Encoding } from './encoding.ts'
import { isNode, split } from './nodes.ts'

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

function join(arena: Arena, left: Sum, right: Sum): Sum {
  arena.add(left.gradient, right.gradient)
  arena.give(right.gradient)
  return {
    gradient: left.gradient,
    loss: left.loss + right.loss,
    correct: left.correct + right.correct,
    count: left.count + right.count,
  }
}

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
 */
export class ReductionTree {
  readonly #arena: Arena
  readonly #rounding: Rounding | undefined
  readonly #encoder: Encoder
  readonly #sums = new Map<string, Sum>()
  readonly #taken: boolean[] = []
  #leaves = 0
  #step = 0
  #first = 0

  /** @param arena Where it adds; gradients have its size. */
  constructor(arena: Arena, rounding?: Rounding) {
    this.#arena = arena
    this.#rounding = rounding
    this.#encoder = new Encoder(arena.size)
  }

  /**
   * Starts over with a batch of so many leaves, that of a step.
   *
   * @param first Where this is a node of a larger tree: the number of its first leaf there, by which it is rounded.
   */
  begin(leaves: number, step = 0, first = 0): void {
    this.#step = step
    this.#first = first
    for (const { gradient } of this.#sums.values()) this.#arena.give(gradient)
    this.#sums.clear()
    this.#leaves = leaves
    this.#taken.length = leaves
    this.#taken.fill(false)
  }

  /** How the sum of a node travels: rounded, or as it is. */
  encoding(lo: number, hi: number): Encoding {
    const rounding = this.#rounding
    const rounded =
      rounding && lo % rounding.leaves === 0 && hi === Math.min(lo + rounding.leaves, this.#leaves)
    return rounded ? rounding.encoding : 'float32'
  }

  /**
   * Takes the sum of node [lo, hi); the gradient is copied.
   *
   * @param gradient In the node's `encoding`, at a place that 8 divides.
   * Throws E_NOT_ASKED where that is no node, or overlaps with what was taken, E_GRADIENT where the gradient has
   * another size, and E_NOT_FINITE where it holds NaN or Inf; then nothing is taken.
   */
  accept(lo: number, hi: number, gradient: Uint8Array, totals: Totals): void {
    if (!isNode(lo, hi, this.#leaves)) {
      throw new ConvoyError(
        'E_NOT_ASKED',
        `[${lo}, ${hi}) is not a node of ${this.#leaves} leaves`,
        'Nothing.',
      )
    }
    for (let leaf = lo; leaf < hi; leaf++) {
      if (this.#taken[leaf]) {
        throw new ConvoyError('E_NOT_ASKED', `leaf ${leaf} of [${lo}, ${hi}) was taken already`, 'Nothing.')
      }
    }
    const encoding = this.encoding(lo, hi)
    const bytes = encodedBytes(encoding, this.#arena.size)
    if (gradient.byteLength !== bytes)
      throw unusable(`a gradient has ${gradient.byteLength} bytes instead of ${bytes}`)
    const slot = this.#arena.take()
    decode(encoding, gradient, slot.values)
    if (!this.#arena.isFinite(slot)) {
      this.#arena.give(slot)
      throw new ConvoyError(
        'E_NOT_FINITE',
        'a gradient holds NaN or Inf',
        'Check the memory and the engine of that machine.',
      )
    }
    this.#taken.fill(true, lo, hi)
    this.#sums.set(`${lo}-${hi}`, { gradient: slot, ...totals })
    this.#reduce(lo, hi)
  }

  get complete(): boolean {
    return this.#sums.has(`0-${this.#leaves}`)
  }

  /** The root's sum, once complete. Valid until the next `begin`. */
  result(): Sum {
    return this.#sums.get(`0-${this.#leaves}`)!
  }

  /** Joins siblings upwards from a node that has just become whole. */
  #reduce(lo: number, hi: number): void {
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
      const left = this.#sums.get(`${parent[0]}-${middle}`)
      const right = this.#sums.get(`${middle}-${parent[1]}`)
      if (!left || !right) return
      const sum = join(this.#arena, left, right)
      this.#round(parent, sum)
      this.#sums.delete(`${parent[0]}-${middle}`)
      this.#sums.delete(`${middle}-${parent[1]}`)
      this.#sums.set(`${parent[0]}-${parent[1]}`, sum)
    }
  }

  /** Rounds a node that was put together here, as it is where it travels. */
  #round([lo, hi]: readonly [number, number], { gradient }: Sum): void {
    const encoding = this.encoding(lo, hi)
    if (encoding === 'float32') return
    const { seed } = this.#rounding!
    const first = this.#first
    const key = { seed, step: this.#step, lo: first + lo, hi: first + hi }
    this.#encoder.round(encoding, gradient.values, key)
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

  /**
   * @param size How many numbers a gradient has.
   * @param arena Where it adds, of that size; one of its own where left out.
   */
  constructor(size: number, arena = new Arena(size)) {
    this.#arena = arena
  }

  /** Starts on node [lo, hi). */
  begin(lo: number, hi: number): void {
    for (const { gradient } of this.#stack) this.#arena.give(gradient)
    this.#stack.length = 0
    this.#lo = this.#next = lo
    this.#hi = hi
  }

  /** Where the next leaf's gradient is to be written. */
  buffer(): Float32Array {
    this.#slot ??= this.#arena.take()
    return this.#slot.values
  }

  /** The next leaf's gradient is in `buffer()`; these are its totals. */
  push(loss: number, correct: number, count: number): void {
    const gradient = this.#slot!
    this.#slot = undefined
    let whole: Whole = { lo: this.#next, hi: ++this.#next, gradient, loss, correct, count }
    for (let left = this.#stack.at(-1); left && this.#siblings(left, whole); left = this.#stack.at(-1)) {
      this.#stack.pop()
      whole = { lo: left.lo, hi: whole.hi, ...join(this.#arena, left, whole) }
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
