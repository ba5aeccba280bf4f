import { ConvoyError } from '@convoy/errors'
import { roundInPlace } from './bf16.ts'
import { isNode, split } from './nodes.ts'

/** What is summed besides the gradient. The loss is a float64 and takes the same tree. */
export interface Totals {
  readonly loss: number
  readonly correct: number
  readonly count: number
}

/** A node's sum. */
export interface Sum extends Totals {
  readonly gradient: Float32Array
}

/** Adds the right sum to the left one, element by element, each rounded to float32. The order of the two is fixed. */
export function addInto(left: Float32Array, right: Float32Array): void {
  for (let i = 0; i < left.length; i++) left[i] = left[i] + right[i]
}

function join(left: Sum, right: Sum): Sum {
  addInto(left.gradient, right.gradient)
  return {
    gradient: left.gradient,
    loss: left.loss + right.loss,
    correct: left.correct + right.correct,
    count: left.count + right.count,
  }
}

/**
 * Finishes the tree: takes whole nodes in any order, adds siblings as soon as both are there, and ends with the root.
 * Since the tree is fixed, so are the additions and their order: the bits do not depend on who sent what, or when.
 */
export class ReductionTree {
  readonly #size: number
  readonly #roundedLeaves: number | undefined
  readonly #sums = new Map<string, Sum>()
  readonly #taken: boolean[] = []
  readonly #free: Float32Array[] = []
  #leaves = 0

  /**
   * @param size How many numbers a gradient has.
   * @param roundedLeaves Where given: nodes of so many leaves (a power of two; fewer at the ragged end) are rounded to
   *   bfloat16, since that is what may travel there. It is done here too, for nodes that were put together here.
   */
  constructor(size: number, roundedLeaves?: number) {
    this.#size = size
    this.#roundedLeaves = roundedLeaves
  }

  /** Starts over with a batch of so many leaves. */
  begin(leaves: number): void {
    for (const { gradient } of this.#sums.values()) this.give(gradient)
    this.#sums.clear()
    this.#leaves = leaves
    this.#taken.length = leaves
    this.#taken.fill(false)
  }

  /** A buffer of a gradient's size, used or new. */
  take(): Float32Array {
    return this.#free.pop() ?? new Float32Array(this.#size)
  }

  /** Gives a buffer back. At most a few are kept. */
  give(buffer: Float32Array): void {
    if (this.#free.length < 4) this.#free.push(buffer)
  }

  /** Whether this node is one that is rounded to bfloat16. */
  isRounded(lo: number, hi: number): boolean {
    const block = this.#roundedLeaves
    return block !== undefined && lo % block === 0 && hi === Math.min(lo + block, this.#leaves)
  }

  /**
   * Takes the sum of node [lo, hi). The gradient is the tree's from now on: it is added to in place.
   * Throws E_NOT_ASKED where that is no node, or overlaps with what was taken; then nothing is taken.
   */
  accept(lo: number, hi: number, gradient: Float32Array, totals: Totals): void {
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
    this.#taken.fill(true, lo, hi)
    this.#sums.set(`${lo}-${hi}`, { gradient, ...totals })
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
      const sum = join(left, right)
      if (this.isRounded(...parent)) roundInPlace(sum.gradient)
      this.#sums.delete(`${parent[0]}-${middle}`)
      this.#sums.delete(`${middle}-${parent[1]}`)
      this.#sums.set(`${parent[0]}-${parent[1]}`, sum)
      this.give(right.gradient)
    }
  }
}

/** One frame of `NodeSummer`'s stack: a node whose sum is whole. */
interface Whole extends Sum {
  readonly lo: number
  readonly hi: number
}

/**
 * A worker's part of the tree: sums the leaves of one node as they are computed, left to right, with about log2 as many
 * buffers as leaves. Reused for every node.
 */
export class NodeSummer {
  readonly #size: number
  readonly #free: Float32Array[] = []
  readonly #stack: Whole[] = []
  #lo = 0
  #hi = 0
  #next = 0
  #buffer: Float32Array | undefined

  /** @param size How many numbers a gradient has. */
  constructor(size: number) {
    this.#size = size
  }

  /** Starts on node [lo, hi). */
  begin(lo: number, hi: number): void {
    for (const { gradient } of this.#stack) this.#free.push(gradient)
    this.#stack.length = 0
    this.#lo = this.#next = lo
    this.#hi = hi
  }

  /** Where the next leaf's gradient is to be written. */
  buffer(): Float32Array {
    this.#buffer ??= this.#free.pop() ?? new Float32Array(this.#size)
    return this.#buffer
  }

  /** The next leaf's gradient is in `buffer()`; these are its totals. */
  push(loss: number, correct: number, count: number): void {
    const gradient = this.buffer()
    this.#buffer = undefined
    let whole: Whole = { lo: this.#next, hi: ++this.#next, gradient, loss, correct, count }
    for (let left = this.#stack.at(-1); left && this.#siblings(left, whole); left = this.#stack.at(-1)) {
      this.#stack.pop()
      const right = whole.gradient
      whole = { lo: left.lo, hi: whole.hi, ...join(left, whole) }
      this.#free.push(right)
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
