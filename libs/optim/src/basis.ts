import type { Slot } from '@convoy/arena'
import { plain, type Parametrisation, type Part } from './parametrisation.ts'

/** A kernel in HWIO, whose filters are the columns of a matrix [height·width·input, filters]. */
export interface BasisKernel {
  /** Where it starts among the parameters, in elements. */
  readonly offset: number
  readonly filters: number
  /** As many orthonormal vectors of height·width·input numbers as these are long. */
  readonly directions: readonly ArrayLike<number>[]
  /** How long each basis vector is: the direction times this. */
  readonly lengths: ArrayLike<number>
}

/**
 * The filters of one kernel as coordinates in a basis that stays the same for the whole run, such as the eigenvectors of what a first
 * layer sees, each divided by its deviation: a rule that treats all coordinates alike then does so with inputs of one variance. With v
 * the coordinates of a filter,
 *
 *     w = Σ v·length·direction        and the gradient by v is length·(g·direction)
 *
 * All other parameters are the variables. Numbers are float64 within a sum and rounded to float32 where stored.
 */
export class Basis implements Parametrisation {
  readonly size: number
  readonly identity = false
  readonly parts: readonly Part[]
  readonly #kernel: BasisKernel
  /** What coordinates, gradients by a filter and filters are multiplied by, row by row. */
  readonly #toKernel: readonly Float64Array[]
  readonly #toGradient: readonly Float64Array[]
  readonly #toVariables: readonly Float64Array[]

  /**
   * @param size How many parameters there are.
   * @param cuts Where parts begin besides the first; none is within the kernel.
   */
  constructor(size: number, kernel: BasisKernel, cuts: readonly number[]) {
    const { directions, lengths } = kernel
    this.size = size
    this.parts = plain(size, cuts).parts
    this.#kernel = kernel
    this.#toKernel = directions.map((_, row) =>
      Float64Array.from(directions, (direction, i) => direction[row] * lengths[i]),
    )
    this.#toGradient = directions.map((direction, i) =>
      Float64Array.from(direction, (value) => value * lengths[i]),
    )
    this.#toVariables = directions.map((direction, i) =>
      Float64Array.from(direction, (value) => value / lengths[i]),
    )
  }

  kernels(variables: Slot, into: Slot, part: number): void {
    this.#convert(variables, into, part, this.#toKernel)
  }

  gradient(_variables: Slot, kernelGradient: Slot, into: Slot, part: number): void {
    this.#convert(kernelGradient, into, part, this.#toGradient)
  }

  fromKernels(parameters: Float32Array): Float32Array {
    const variables = parameters.slice()
    this.#multiply(this.#toVariables, parameters, variables)
    return variables
  }

  #convert(from: Slot, into: Slot, part: number, matrix: readonly Float64Array[]): void {
    const [first, end] = this.parts[part].parameters
    const [source, target] = [from.values, into.values]
    target.set(source.subarray(first, end), first)
    if (first <= this.#kernel.offset && this.#kernel.offset < end) this.#multiply(matrix, source, target)
  }

  /** The kernel's matrix in `into` ← matrix · that in `from`. */
  #multiply(matrix: readonly Float64Array[], from: Float32Array, into: Float32Array): void {
    const { offset, filters } = this.#kernel
    matrix.forEach((row, i) => {
      for (let j = 0; j < filters; j++) {
        let sum = 0
        for (let k = 0; k < row.length; k++) sum += row[k] * from[offset + k * filters + j]
        into[offset + i * filters + j] = sum
      }
    })
  }
}
