import type { Arena, Columns, Matrix, Slot } from '@convoy/arena'

/** The polynomial of an iteration, a·σ + b·σ³ + c·σ⁵, as in Jordan et al. (2024): it lifts small singular values the fastest. */
const [A, B, C] = [3.4445, -4.775, 2.0315]

/**
 * The nearest orthogonal matrix, roughly: with x = U·Σ·Vᵀ something near U·Vᵀ, by Newton and Schulz's iteration
 *
 *     x ← x / ‖x‖;   x ← a·x + b·x·xᵀx + c·x·(xᵀx)²   some times
 *
 * (Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Bernstein and Newhouse, "Old Optimizer, New Norm:
 * An Anthology", 2024). After 5 iterations singular values from ‖x‖/600 on are between 0.68 and 1.21, smaller ones are
 * multiplied by up to 485. Every iterate is x times a polynomial of xᵀx, so only this polynomial p and the iterate's Gram matrix g, both columns ×
 * columns, are iterated, and x is multiplied once:
 *
 *     q = a + b·g + c·g²;   p ← p·q;   g ← g·q²
 *
 * Products are in float32, each number summed in one fixed order. That is within 5·10⁻⁴ of float64 for 1,728 × 192, since where the Gram
 * matrix is rounded away, below some 10⁻⁴, p hardly depends on it.
 */
export class NewtonSchulz {
  readonly #arena: Arena
  readonly #iterations: number
  /** Symmetric matrices, columns × columns. */
  readonly #square: readonly Slot[]
  /** For each column, the same. */
  readonly #factors: Record<'zero' | 'a' | 'b' | 'squares', Columns>

  /**
   * @param columns As many as a matrix has at most.
   * @param iterations 1–6. Rounding makes the smallest eigenvalues of g negative, and these run away if there are more.
   */
  constructor(arena: Arena, columns: number, iterations: number) {
    this.#arena = arena
    this.#iterations = iterations
    this.#square = Array.from({ length: 4 }, () => arena.take(columns * columns))
    const room = () => arena.takeColumns(columns)
    this.#factors = { zero: room(), a: room(), b: room(), squares: room() }
    this.#factors.zero.values.fill(0)
  }

  /** to ← x, orthogonalised. x is scaled to norm 1; where it is 0, so is `to`, which must be another slot. */
  orthogonalise(x: Slot, to: Slot, matrix: Matrix): void {
    const { columns } = matrix
    const arena = this.#arena
    const { zero, a, b } = this.#factors
    const square = { first: 0, rows: columns, columns }
    const norm = this.norm(x, matrix)
    a.values.fill(norm > 0 ? 1 / norm : 0)
    arena.columnLine(x, x, matrix, a, zero)

    const [gram, factor] = this.#square
    let [, , polynomial, free] = this.#square
    arena.symmetricProduct(x, x, matrix, gram)
    a.values.fill(B)
    b.values.fill(C)
    for (let iteration = 1; iteration <= this.#iterations; iteration++) {
      arena.symmetricProduct(gram, gram, square, free)
      arena.columnPlane(gram, free, factor, square, a, b, zero)
      for (let i = 0; i < columns; i++) factor.values[i * (columns + 1)] += A
      if (iteration === 1) {
        polynomial.values.set(factor.values)
      } else {
        arena.symmetricProduct(polynomial, factor, square, free)
        ;[polynomial, free] = [free, polynomial]
      }
      if (iteration === this.#iterations) break
      arena.symmetricProduct(gram, factor, square, free)
      arena.symmetricProduct(free, factor, square, gram)
    }
    arena.product(x, polynomial, to, matrix)
  }

  /** The Frobenius norm: float64, column by column. */
  norm(x: Slot, matrix: Matrix): number {
    const { zero, squares } = this.#factors
    this.#arena.columnSquares(x, matrix, zero, squares)
    let sum = 0
    for (let j = 0; j < matrix.columns; j++) sum += squares.values[j]
    return Math.sqrt(sum)
  }
}
