import { curveNames, type CurveName, type Rows } from '@convoy/protocol'

/** Buckets that are kept at most; beyond them, two become one. 3 MB for a run of any length. */
const CAPACITY = 1 << 16

/** The values of one step; NaN where there is none. */
export type CurvePoint = Record<CurveName, number>

/**
 * Curves over the steps of a run, of bounded size: the smallest and largest value of each bucket of steps. A bucket is
 * one step until there are too many of them, then two, four, …
 */
export class Curves {
  readonly #capacity: number
  /** Steps in a bucket. */
  #stride = 1
  #count = 0
  /** Steps in the last bucket so far. */
  #filled = 0
  /** The first and the last step of each bucket. */
  #firsts = new Float64Array(256)
  #steps = new Float64Array(256)
  readonly #low = curveNames.map(() => new Float32Array(256))
  readonly #high = curveNames.map(() => new Float32Array(256))

  /** @param capacity How many buckets are kept, an even number. */
  constructor(capacity = CAPACITY) {
    this.#capacity = capacity
  }

  get empty(): boolean {
    return this.#count === 0
  }

  /** Adds a step. One that was there already takes back all from it on: a resumed run does its last steps again. */
  push(step: number, point: CurvePoint): void {
    if (this.#count > 0 && step <= this.#steps[this.#count - 1]) this.cutFrom(step)
    if (this.#count === 0 || this.#filled >= this.#stride) this.#open(step)
    const at = this.#count - 1
    this.#steps[at] = step
    this.#filled++
    for (let i = 0; i < curveNames.length; i++) {
      const value = point[curveNames[i]]
      const low = this.#low[i]
      const high = this.#high[i]
      if (value < low[at] || Number.isNaN(low[at])) low[at] = value
      if (value > high[at] || Number.isNaN(high[at])) high[at] = value
    }
  }

  /** Steps `from` to `to` in at most `buckets` buckets of two rows, its smallest and largest values. */
  rows(from: number, to: number, buckets: number): Rows {
    const rows: Rows = {
      step: [],
      cost1000: [],
      cost5000: [],
      trainAccuracy: [],
      learningRate: [],
      imagesPerSecond: [],
    }
    const begin = this.#find(from)
    const end = Math.min(this.#count, this.#find(to) + 1)
    const each = Math.max(1, Math.ceil((end - begin) / Math.max(1, buckets)))
    const before = curveNames.map(() => NaN)
    for (let lo = begin; lo < end; lo += each) {
      const hi = Math.min(end, lo + each)
      const first = this.#firsts[lo]
      const last = this.#steps[hi - 1]
      const both = first < last
      if (both) rows.step.push(first)
      rows.step.push(last)
      curveNames.forEach((name, i) => {
        let low = NaN
        let high = NaN
        for (let at = lo; at < hi; at++) {
          if (this.#low[i][at] < low || Number.isNaN(low)) low = this.#low[i][at]
          if (this.#high[i][at] > high || Number.isNaN(high)) high = this.#high[i][at]
        }
        // Whichever is nearer to where the line is comes first: the line then has no teeth that the values have not.
        const down = Math.abs(before[i] - high) < Math.abs(before[i] - low)
        if (both) rows[name].push(short(down ? high : low))
        rows[name].push(short(down ? low : high))
        before[i] = down ? low : high
      })
    }
    return rows
  }

  /** The first bucket that reaches `step`. */
  #find(step: number): number {
    let lo = 0
    let hi = this.#count
    while (lo < hi) {
      const middle = (lo + hi) >> 1
      if (this.#steps[middle] < step) lo = middle + 1
      else hi = middle
    }
    return lo
  }

  /** Takes back all steps from this one on. */
  cutFrom(step: number): void {
    this.#count = this.#find(step)
    this.#filled = this.#stride
  }

  #open(step: number): void {
    if (this.#count === this.#capacity) this.#halve()
    if (this.#count === this.#steps.length) {
      const size = Math.min(this.#capacity, 2 * this.#count)
      this.#firsts = grown(this.#firsts, size)
      this.#steps = grown(this.#steps, size)
      for (const columns of [this.#low, this.#high]) {
        columns.forEach((column, i) => {
          columns[i] = new Float32Array(size)
          columns[i].set(column)
        })
      }
    }
    for (const low of this.#low) low[this.#count] = NaN
    for (const high of this.#high) high[this.#count] = NaN
    this.#firsts[this.#count] = step
    this.#count++
    this.#filled = 0
  }

  #halve(): void {
    const half = this.#count / 2
    for (let at = 0; at < half; at++) {
      this.#firsts[at] = this.#firsts[2 * at]
      this.#steps[at] = this.#steps[2 * at + 1]
      for (const low of this.#low) low[at] = least(low[2 * at], low[2 * at + 1])
      for (const high of this.#high) high[at] = -least(-high[2 * at], -high[2 * at + 1])
    }
    this.#count = half
    this.#stride *= 2
    this.#filled = this.#stride
  }
}

function grown(column: Float64Array<ArrayBuffer>, size: number): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(size)
  larger.set(column)
  return larger
}

/** The smaller one, or the one that is a number. */
function least(a: number, b: number): number {
  return a < b || Number.isNaN(b) ? a : b
}

/** Five digits are more than a pixel shows; null where there is no number. */
export function short(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(5)) : null
}
