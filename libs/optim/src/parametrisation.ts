import type { Slot } from '@convoy/arena'

/** Elements of a part: 1 MB of float32. */
export const PART = 1 << 18

/** Elements [first, end). */
export type Stretch = readonly [first: number, end: number]

/** A part of the parameters that can be computed without the others, with the variables that it comes from. */
export interface Part {
  /** Where it is among the parameters; its variables are in the same places. */
  readonly parameters: Stretch
  /** The gains that it has besides. */
  readonly gains: Stretch
}

/**
 * How the parameters that a network computes with, its kernels and biases, come from the variables that an optimizer moves. There is a
 * variable for each parameter, in its place; behind all of them comes what whole filters have: gains, and what does not move. Slots
 * are of one arena.
 */
export interface Parametrisation {
  /** How many variables there are. */
  readonly size: number
  /** Whether the variables are the parameters; then nothing has to be computed. */
  readonly identity: boolean
  /** In order, without gaps. */
  readonly parts: readonly Part[]
  /** Puts the parameters of part `part` into their places. */
  kernels(variables: Slot, into: Slot, part: number): void
  /** Puts the gradient by the variables of part `part` into their places, from that by its parameters. */
  gradient(variables: Slot, kernelGradient: Slot, into: Slot, part: number): void
  /**
   * Variables for these parameters.
   *
   * @param gain The gain of every filter; left out, the parameters stay what they are.
   */
  fromKernels(parameters: Float32Array, gain?: number): Float32Array
}

/**
 * The identity.
 *
 * @param cuts Where the second part and those behind it begin; where left out, each has `PART` elements.
 */
export function plain(size: number, cuts: readonly number[] = wholeParts(size)): Parametrisation {
  return {
    size,
    identity: true,
    parts: [0, ...cuts].map((first, part) => ({
      parameters: [first, cuts[part] ?? size] as const,
      gains: [size, size] as const,
    })),
    kernels: () => undefined,
    gradient: () => undefined,
    fromKernels: (parameters) => parameters,
  }
}

/**
 * Where the parts of so many elements begin, but the first.
 *
 * @param cut Where one has to, which need not be.
 */
export function wholeParts(size: number, cut = 0): number[] {
  const from = (first: number, end: number) =>
    Array.from({ length: Math.ceil((end - first) / PART) }, (_, part) => first + part * PART)
  return [...from(0, cut), ...from(cut, size)].slice(1)
}
