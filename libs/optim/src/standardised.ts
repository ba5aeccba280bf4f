import type { Arena, Columns, Matrix, Slot } from '@convoy/arena'
import { PART, type Parametrisation, type Part, type Stretch } from './parametrisation.ts'

/** A kernel whose filters are standardised, in HWIO: a filter is a column of the matrix [height·width·input, filters]. */
export interface StandardisedKernel {
  /** Where it starts among the parameters, in elements. */
  readonly offset: number
  /** How many elements it has. */
  readonly size: number
  readonly filters: number
  /** c: what its gains are multiplied by, for what its input has gone through. */
  readonly scale: number
}

/** A smaller Σ (v - mean)² counts as this: where the variables of a filter are all the same, they have no direction to make longer. */
const LEAST_SQUARES = 1e-8

interface Kernel extends StandardisedKernel, Matrix {
  /** Where its gains start among the variables, */
  readonly gains: number
  /** and the means of its filters. */
  readonly means: number
}

interface StandardisedPart extends Part {
  readonly kernels: readonly Kernel[]
  /** What lies between them, where the variables are the parameters: biases, and kernels that are not standardised. */
  readonly rest: readonly Stretch[]
}

/**
 * Scaled weight standardisation (Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight
 * Standardization", 2019; Brock, De and Smith, "Characterizing signal propagation to close the performance gap in
 * unnormalized ResNets", 2021). With variables v and one gain a filter, its kernel is
 *
 *     w = gain · c · (v - mean) / (deviation · √fan-in) + m = gain · c · u + m      where u = (v - mean) / n,  n = √Σ (v - mean)²
 *
 * m, which stays what it is, is 0 but for kernels that were given: their own mean, so that they begin as what they are. The m of all
 * filters stand behind the gains.
 *
 * and with g the gradient by w, that by the gain is c·Σ g·u and that by v is gain·c/n · (g - mean(g) - u·Σ g·u). It has no part
 * along v and none along 1, since w does not change with these.
 *
 * Numbers are float64 within a filter, summed from its first row to its last, and rounded to float32 where stored.
 */
export class Standardised implements Parametrisation {
  readonly size: number
  readonly identity = false
  readonly parts: readonly StandardisedPart[]
  readonly #arena: Arena
  /** One number for each filter of the kernel at hand. */
  readonly #columns: Record<'mean' | 'squares' | 'sums' | 'products' | 'a' | 'b' | 'c', Columns>

  /**
   * @param arena Where it computes, with slots of as many numbers as there are parameters.
   * @param kernels What is standardised, in the order of the parameters.
   */
  constructor(arena: Arena, kernels: readonly StandardisedKernel[]) {
    this.#arena = arena
    const most = Math.max(0, ...kernels.map(({ filters }) => filters))
    const room = () => arena.takeColumns(most)
    this.#columns = {
      ...{ mean: room(), squares: room(), sums: room(), products: room() },
      ...{ a: room(), b: room(), c: room() },
    }
    const all = kernels.reduce((sum, { filters }) => sum + filters, 0)
    let gains = arena.size
    const placed = kernels.map((kernel) => {
      const { offset, size, filters } = kernel
      const matrix = { first: offset, rows: size / filters, columns: filters }
      gains += filters
      return { ...kernel, ...matrix, gains: gains - filters, means: gains - filters + all }
    })
    this.size = gains + all
    this.parts = partsOf(placed, arena.size)
  }

  kernels(variables: Slot, into: Slot, part: number): void {
    const { kernels, rest } = this.parts[part]
    const { a, c, mean, squares } = this.#columns
    for (const kernel of kernels) {
      this.#moments(variables, kernel)
      for (let j = 0; j < kernel.filters; j++) {
        const factor = this.#factor(variables, kernel, j, squares.values[j])
        a.values[j] = factor
        c.values[j] = variables.values[kernel.means + j] - factor * mean.values[j]
      }
      this.#arena.columnLine(variables, into, kernel, a, c)
    }
    copy(variables, into, rest)
  }

  gradient(variables: Slot, kernelGradient: Slot, into: Slot, part: number): void {
    const { kernels, rest } = this.parts[part]
    const { a, b, c, mean, squares, sums, products } = this.#columns
    for (const kernel of kernels) {
      this.#moments(variables, kernel)
      this.#arena.columnProducts(kernelGradient, variables, kernel, mean, sums, products)
      for (let j = 0; j < kernel.filters; j++) {
        // n² as it is in w, which does not change with v where v has no length.
        const least = squares.values[j] < LEAST_SQUARES
        const n2 = least ? LEAST_SQUARES : squares.values[j]
        const factor = this.#factor(variables, kernel, j, squares.values[j])
        const along = least ? 0 : (factor * products.values[j]) / n2
        into.values[kernel.gains + j] = (kernel.scale * products.values[j]) / Math.sqrt(n2)
        // factor·(g - mean(g)) - along·(v - mean), by powers of g and v.
        a.values[j] = factor
        b.values[j] = -along
        c.values[j] = along * mean.values[j] - (factor * sums.values[j]) / kernel.rows
      }
      this.#arena.columnPlane(kernelGradient, variables, into, kernel, a, b, c)
    }
    copy(kernelGradient, into, rest)
  }

  fromKernels(parameters: Float32Array, gain?: number): Float32Array {
    const { mean, squares } = this.#columns
    const variables = this.#arena.take(this.size)
    variables.values.set(parameters)
    for (const kernel of this.parts.flatMap(({ kernels }) => kernels)) {
      this.#moments(variables, kernel)
      for (let j = 0; j < kernel.filters; j++) {
        variables.values[kernel.gains + j] = gain ?? Math.sqrt(squares.values[j]) / kernel.scale
        variables.values[kernel.means + j] = gain === undefined ? mean.values[j] : 0
      }
    }
    this.#arena.give(variables)
    return variables.values.slice()
  }

  /** Mean and Σ (v - mean)² of each filter. */
  #moments(variables: Slot, kernel: Kernel): void {
    const { mean, squares } = this.#columns
    this.#arena.columnSums(variables, kernel, mean)
    for (let j = 0; j < kernel.filters; j++) mean.values[j] /= kernel.rows
    this.#arena.columnSquares(variables, kernel, mean, squares)
  }

  /** What v - mean of a filter is multiplied by. */
  #factor(variables: Slot, kernel: Kernel, filter: number, squares: number): number {
    const gain = variables.values[kernel.gains + filter]
    return (gain * kernel.scale) / Math.sqrt(squares < LEAST_SQUARES ? LEAST_SQUARES : squares)
  }
}

/** Cuts parameters into parts of whole kernels, each of at most `PART` elements where its first kernel allows. */
function partsOf(kernels: readonly Kernel[], size: number): StandardisedPart[] {
  const groups: Kernel[][] = [[]]
  let first = 0
  kernels.forEach((kernel, i) => {
    // With what lies between it and the next one.
    const end = kernels[i + 1]?.offset ?? size
    if (end - first > PART && groups.at(-1)!.length > 0) {
      groups.push([])
      first = kernel.offset
    }
    groups.at(-1)!.push(kernel)
  })
  return groups.map((group, i) => {
    const parameters = [i === 0 ? 0 : group[0].offset, groups[i + 1]?.[0].offset ?? size] as const
    const gains = group.length === 0 ? size : group[0].gains
    const ends = group.map(({ offset, size }) => offset + size)
    const rest = [parameters[0], ...ends]
      .map((from, j): Stretch => [from, group[j]?.offset ?? parameters[1]])
      .filter(([from, to]) => from < to)
    return {
      parameters,
      gains: [gains, gains + group.reduce((sum, { filters }) => sum + filters, 0)],
      kernels: group,
      rest,
    }
  })
}

function copy(from: Slot, into: Slot, stretches: readonly Stretch[]): void {
  const [source, target] = [from.values, into.values]
  for (const [first, end] of stretches) for (let i = first; i < end; i++) target[i] = source[i]
}
