import { instantiate, type ColumnKernels, type Kernels, type Memory } from './kernels.ts'

/** Slots are whole blocks of so many bytes, so that most loops have no rest to care for; the padding stays zero. */
const BLOCK = 64
const PAGE = 65_536

/** So many rows of a product's factors are worked on at a time, so that they stay in the fastest cache. */
const DEPTH = 96

/** The place of one array of float32 numbers. */
export interface Slot {
  /** The numbers; take them anew after each `Arena.take`, since the memory may have moved. */
  readonly values: Float32Array
}

/** The place of one float64 number for each column of a matrix. */
export interface Columns {
  /** The numbers; take them anew after each `Arena.take`, since the memory may have moved. */
  readonly values: Float64Array
}

/** A slot or columns, as they are here. */
class Room<Values extends Float32Array | Float64Array> {
  /** Where it starts and ends, in bytes. */
  readonly at: number
  readonly end: number
  readonly #view: () => Values
  #values: Values

  constructor(at: number, end: number, view: () => Values) {
    this.at = at
    this.end = end
    this.#view = view
    this.#values = view()
  }

  get values(): Values {
    // Growing the memory leaves older views without it.
    if (this.#values.length === 0) this.#values = this.#view()
    return this.#values
  }
}

/** A matrix within each of some slots: the same numbers in all, from `first` on, a row behind another. */
export interface Matrix {
  readonly first: number
  readonly rows: number
  readonly columns: number
}

/** What an update with momentum needs besides its arrays. */
export interface Momentum {
  /** μ */
  readonly momentum: number
  readonly nesterov: boolean
  /** η */
  readonly rate: number
  /** The gradient is multiplied by this, */
  readonly scale: number
  /** and the parameter times this is added to it. */
  readonly decay: number
}

/**
 * Arrays side by side in one WebAssembly memory, where they are worked on several numbers at a time. In plain
 * JavaScript the same arithmetic takes several times as long, and it stands between one step and the next. Every
 * operation is rounded as IEEE 754 says, so the bits are those of the formula, whatever the machine.
 */
export class Arena {
  readonly size: number
  readonly #memory: Memory
  readonly #kernels: Kernels
  readonly #free: Room<Float32Array>[] = []
  #used = 0

  /** @param size How many numbers a slot has, unless it is taken with another size. */
  constructor(size: number) {
    this.size = size
    const { memory, kernels } = instantiate()
    this.#memory = memory
    this.#kernels = kernels
  }

  /** A free slot; what it holds is whatever was there. Throws a RangeError beyond 4 GiB in all. */
  take(size = this.size): Slot {
    const free = this.#free.findLastIndex(({ values }) => values.length === size)
    if (free >= 0) return this.#free.splice(free, 1)[0]
    const [at, end] = this.#reserve(4 * size)
    return new Room(at, end, () => new Float32Array(this.#memory.buffer, at, size))
  }

  /** Room for a number for each of so many columns, for good. */
  takeColumns(count: number): Columns {
    const [at, end] = this.#reserve(8 * count)
    return new Room(at, end, () => new Float64Array(this.#memory.buffer, at, count))
  }

  #reserve(bytes: number): [at: number, end: number] {
    const at = this.#used
    this.#used += Math.ceil(bytes / BLOCK) * BLOCK
    const missing = this.#used - this.#memory.buffer.byteLength
    if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE))
    return [at, this.#used]
  }

  /** A slot with a copy of these numbers. */
  hold(values: Float32Array): Slot {
    const slot = this.take(values.length)
    slot.values.set(values)
    return slot
  }

  give(slot: Slot): void {
    this.#free.push(slot as Room<Float32Array>)
  }

  /** left ← left + right, number by number, in float32, of elements [first, end). */
  add(left: Slot, right: Slot, first = 0, end = left.values.length): void {
    const [from, to] = wholeBlocks(left, first, end)
    const { at } = left as Room<Float32Array>
    if (to > from) this.#kernels.add(at + from, (right as Room<Float32Array>).at + from, at + to)
    const [a, b] = [left.values, right.values]
    for (const i of outside(first, end, from / 4, to / 4)) a[i] += b[i]
  }

  /** Whether no number of elements [first, end) is NaN or infinite. */
  isFinite(slot: Slot, first = 0, end = slot.values.length): boolean {
    const [from, to] = wholeBlocks(slot, first, end)
    const { at } = slot as Room<Float32Array>
    if (to > from && this.#kernels.nonFinite(at + from, at + to) > 0) return false
    return outside(first, end, from / 4, to / 4).every((i) => Number.isFinite(slot.values[i]))
  }

  /** The Euclidean norm, summed in float64: four sums side by side, added up in one fixed order. */
  norm(slot: Slot): number {
    const { at, end } = slot as Room<Float32Array>
    return Math.sqrt(this.#kernels.squares(at, end))
  }

  /**
   * One update with momentum of the elements [first, end), in float64 but for what is stored:
   *
   *     push = η·(g·scale + decay·w);   v ← μ·v - push;   w ← w + μ·v - push   (Nesterov)   or   w + v   (classical)
   */
  update(w: Slot, v: Slot, g: Slot, first: number, end: number, how: Momentum): void {
    const { momentum, nesterov, rate, scale, decay } = how
    // The kernel does eight elements at a time and leaves a rest.
    const whole = first + ((end - first) & ~7)
    if (whole > first) {
      const place = (slot: Slot) => (slot as Room<Float32Array>).at + 4 * first
      const kernel = nesterov ? this.#kernels.nesterov : this.#kernels.classical
      kernel(
        place(w),
        place(v),
        place(g),
        (w as Room<Float32Array>).at + 4 * whole,
        momentum,
        rate,
        scale,
        decay,
      )
    }
    for (let i = whole; i < end; i++) {
      const push = rate * (g.values[i] * scale + decay * w.values[i])
      // The v that is stored is what counts: it is the one that a checkpoint keeps.
      v.values[i] = momentum * v.values[i] - push
      w.values[i] = nesterov ? w.values[i] + momentum * v.values[i] - push : w.values[i] + v.values[i]
    }
  }

  /** Σ x of each column; this and what follows is in float64 but for what is stored, each column from its first row on. */
  columnSums(x: Slot, matrix: Matrix, sums: Columns): void {
    const stride = 4 * matrix.columns
    for (let j = 0; j < matrix.columns;) {
      const kernels = this.#columns(matrix, j)
      const at = place(x, matrix, j)
      kernels.sums(at, at + stride * matrix.rows, stride, column(sums, j))
      j += kernels.width
    }
  }

  /** Σ (x - center)² of each column. */
  columnSquares(x: Slot, matrix: Matrix, center: Columns, squares: Columns): void {
    const stride = 4 * matrix.columns
    for (let j = 0; j < matrix.columns;) {
      const kernels = this.#columns(matrix, j)
      const at = place(x, matrix, j)
      kernels.squares(at, at + stride * matrix.rows, stride, column(center, j), column(squares, j))
      j += kernels.width
    }
  }

  /** Σ x and Σ x·(y - center) of each column. */
  columnProducts(x: Slot, y: Slot, matrix: Matrix, center: Columns, sums: Columns, products: Columns): void {
    const stride = 4 * matrix.columns
    for (let j = 0; j < matrix.columns;) {
      const kernels = this.#columns(matrix, j)
      const at = place(x, matrix, j)
      const end = at + stride * matrix.rows
      const [m, s, p] = [column(center, j), column(sums, j), column(products, j)]
      kernels.products(at, place(y, matrix, j), end, stride, m, s, p)
      j += kernels.width
    }
  }

  /** to ← a·x + c, with an a and a c for each column. */
  columnLine(x: Slot, to: Slot, matrix: Matrix, a: Columns, c: Columns): void {
    const stride = 4 * matrix.columns
    for (let j = 0; j < matrix.columns;) {
      const kernels = this.#columns(matrix, j)
      const at = place(x, matrix, j)
      kernels.line(at, place(to, matrix, j), at + stride * matrix.rows, stride, column(a, j), column(c, j))
      j += kernels.width
    }
  }

  /** to ← a·x + b·y + c, with an a, a b and a c for each column. */
  columnPlane(x: Slot, y: Slot, to: Slot, matrix: Matrix, a: Columns, b: Columns, c: Columns): void {
    const stride = 4 * matrix.columns
    for (let j = 0; j < matrix.columns;) {
      const kernels = this.#columns(matrix, j)
      const at = place(x, matrix, j)
      const end = at + stride * matrix.rows
      const [y0, to0] = [place(y, matrix, j), place(to, matrix, j)]
      kernels.plane(at, y0, to0, end, stride, column(a, j), column(b, j), column(c, j))
      j += kernels.width
    }
  }

  /**
   * to ← xᵀ·y where that is symmetric, as xᵀ·x is and the product of symmetric matrices that commute; of x·y, too, where x is symmetric.
   * Only what is on and below the diagonal is computed, in float32, each number from the first row to the last.
   *
   * @param to Gets columns × columns numbers at its beginning; neither x nor y.
   */
  symmetricProduct(x: Slot, y: Slot, matrix: Matrix, to: Slot): void {
    const { rows, columns } = matrix
    const stride = 4 * columns
    const result = { first: 0, rows: columns, columns }
    to.values.fill(0, 0, columns * columns)
    for (let k = 0; k < rows; k += DEPTH) {
      const [depth, behind] = [Math.min(DEPTH, rows - k), stride * k]
      for (let j = 0; j < columns;) {
        const width = columns - j >= 8 ? 8 : 1
        const [a, b, c] = [place(x, matrix, j) + behind, place(y, matrix, j) + behind, place(to, result, j)]
        this.#addProduct(a, 4, stride, b, stride, c + stride * j, stride, columns - j, width, depth)
        j += width
      }
    }
    mirror(to.values, columns)
  }

  /**
   * to ← x·y in float32, each number from y's first row to its last.
   *
   * @param y Columns × columns numbers at its beginning.
   * @param to Not x.
   */
  product(x: Slot, y: Slot, to: Slot, matrix: Matrix): void {
    const { first, rows, columns } = matrix
    const stride = 4 * columns
    const square = { first: 0, rows: columns, columns }
    to.values.fill(0, first, first + rows * columns)
    for (let k = 0; k < columns; k += DEPTH) {
      const depth = Math.min(DEPTH, columns - k)
      for (let j = 0; j < columns;) {
        const width = columns - j >= 8 ? 8 : 1
        const [a, b, c] = [place(x, matrix, k), place(y, square, j) + stride * k, place(to, matrix, j)]
        this.#addProduct(a, stride, 4, b, stride, c, stride, rows, width, depth)
        j += width
      }
    }
  }

  /** c ← c + a·b for `rows` rows and `width` columns: see `ProductKernel`. */
  #addProduct(
    a: number,
    aRow: number,
    aStep: number,
    b: number,
    bStep: number,
    c: number,
    cRow: number,
    rows: number,
    width: 8 | 1,
    depth: number,
  ): void {
    const { 4: four, 1: one } = this.#kernels.products
    const [whole, end, bEnd] = [a + aRow * (rows & ~3), a + aRow * rows, b + bStep * depth]
    if (whole > a) four[width](a, whole, aRow, aStep, b, bEnd, bStep, c, cRow)
    if (end > whole) one[width](whole, end, aRow, aStep, b, bEnd, bStep, c + cRow * (rows & ~3), cRow)
  }

  /** The kernels for as many columns from `j` on as can be done at once. */
  #columns({ columns }: Matrix, j: number): ColumnKernels {
    const { eight, one } = this.#kernels.columns
    return columns - j >= eight.width ? eight : one
  }
}

/** Where, in bytes behind a slot's start, the blocks of elements [first, end) lie that are whole; the slot's padding counts as its elements. */
function wholeBlocks(slot: Slot, first: number, end: number): [from: number, to: number] {
  const last = end === slot.values.length ? Math.ceil((4 * end) / BLOCK) : Math.floor((4 * end) / BLOCK)
  const from = BLOCK * Math.ceil((4 * first) / BLOCK)
  return [from, Math.max(from, BLOCK * last)]
}

/** Elements of [first, end) that are not in [from, to): fewer than two blocks. */
function outside(first: number, end: number, from: number, to: number): number[] {
  const elements: number[] = []
  for (let i = first; i < Math.min(end, from); i++) elements.push(i)
  for (let i = Math.max(first, to); i < end; i++) elements.push(i)
  return elements
}

/** Has what is above the diagonal be what is below it. */
function mirror(values: Float32Array, size: number): void {
  for (let row = 1; row < size; row++) {
    for (let column = 0; column < row; column++) values[column * size + row] = values[row * size + column]
  }
}

/** Where column `j` of a matrix begins, in bytes. */
function place(slot: Slot, { first }: Matrix, j: number): number {
  return (slot as Room<Float32Array>).at + 4 * (first + j)
}

/** Where the number of column `j` is, in bytes. */
function column(columns: Columns, j: number): number {
  return (columns as Room<Float64Array>).at + 8 * j
}
