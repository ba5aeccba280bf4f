import type { Arena, Slot } from '@convoy/arena'
import { plain, type Parametrisation, type Stretch } from './parametrisation.ts'

/** How variables move by their gradient. */
export interface Rule {
  /** What is kept of earlier gradients: a number for each variable. */
  readonly velocity: Slot
  /**
   * Moves the variables of a stretch.
   *
   * @param rate η
   * @param scale What the gradient is multiplied by.
   * @param kernel Whether they are a kernel's, which weight decay is for; else biases or gains.
   */
  move(variables: Slot, gradient: Slot, stretch: Stretch, rate: number, scale: number, kernel: boolean): void
}

export interface OptimizerOptions {
  /** The ranges [offset, size] of the parameters that weight decay holds for: the kernels. */
  readonly decayed: readonly (readonly [offset: number, size: number])[]
  /** The largest global norm of the mean gradient by the parameters (Pascanu et al. 2013); 0 is off. */
  readonly clipNorm: number
  /** What the rate is multiplied by for the parameters outside of `decayed`, the biases; 1 where left out. */
  readonly biasRate?: number
  /** What the variables are; where left out, the parameters themselves. */
  readonly parametrisation?: Parametrisation
}

/** Variables that are moved alike. */
interface Group {
  readonly stretch: Stretch
  readonly kernel: boolean
  /** What the rate is multiplied by. */
  readonly rate: number
}

/** Moves variables by a rule, part by part, and has the parameters follow. */
export class Optimizer {
  readonly #arena: Arena
  readonly #rule: Rule
  readonly #parametrisation: Parametrisation
  readonly #clipNorm: number
  readonly #variables: Slot
  readonly #parameters: Slot
  /** The gradient by the variables; undefined where it is that by the parameters. */
  readonly #gradient: Slot | undefined
  /** What each part consists of. */
  readonly #groups: readonly (readonly Group[])[]
  /** The part from which on all were moved ahead of the update; there is none where it is their number. */
  #ahead: number
  /** What variables and velocity were before that, from the first of that part on, in arrays that are used again. */
  #before: { readonly variables: Float32Array; readonly velocity: Float32Array } | undefined

  /**
   * @param arena Where it computes, with slots of as many numbers as there are parameters.
   * @param variables To start with, copied.
   */
  constructor(arena: Arena, variables: Float32Array, rule: Rule, options: OptimizerOptions) {
    const { parametrisation = plain(arena.size), decayed, biasRate = 1, clipNorm } = options
    this.#arena = arena
    this.#rule = rule
    this.#parametrisation = parametrisation
    this.#clipNorm = clipNorm
    this.#variables = arena.hold(variables)
    this.#parameters = parametrisation.identity ? this.#variables : arena.take()
    this.#gradient = parametrisation.identity ? undefined : arena.take(parametrisation.size)
    this.#groups = parametrisation.parts.map(({ parameters, gains }) => [
      ...groupsOf(parameters, decayed, biasRate),
      ...(gains[0] < gains[1] ? [{ stretch: gains, kernel: false, rate: 1 }] : []),
    ])
    this.#ahead = this.#groups.length
    this.#derive()
  }

  /** What the network computes with, float32. Valid until the next update. */
  get parameters(): Float32Array {
    return this.#parameters.values
  }

  /** Its place. */
  get slot(): Slot {
    return this.#parameters
  }

  /** What is optimised, float32: the parameters, or what these are made of. Valid until the next update. */
  get variables(): Float32Array {
    return this.#variables.values
  }

  /** v, float32, one for each variable. Valid until the next update. */
  get velocity(): Float32Array {
    return this.#rule.velocity.values
  }

  /** Whether every parameter is a finite number. */
  isFinite(): boolean {
    return this.#arena.isFinite(this.#parameters)
  }

  /** Goes on from these variables and velocities. */
  restore(variables: Float32Array, velocity: Float32Array): void {
    this.#ahead = this.#groups.length
    this.#variables.values.set(variables)
    this.#rule.velocity.values.set(velocity)
    this.#derive()
  }

  #derive(): void {
    this.#groups.forEach((_, part) => {
      this.#parametrisation.kernels(this.#variables, this.#parameters, part)
    })
  }

  /**
   * Does what can be done of the next update while only the gradient's end is known; `update` does the rest, and `takeBack` undoes it.
   *
   * @param gradientSum Complete from element `cut` on.
   * @returns From which parameter on they are updated; undefined where the update needs to know all of the gradient.
   */
  moveAhead(gradientSum: Slot, count: number, rate: number, cut: number): number | undefined {
    const { parts } = this.#parametrisation
    const part = parts.findIndex(({ parameters }) => parameters[0] >= cut)
    if (this.#clipNorm > 0 || part < 0) return undefined
    const first = parts[part].parameters[0]
    const [variables, velocity] = [this.variables, this.velocity].map((values) => values.subarray(first))
    this.#before ??= { variables: variables.slice(), velocity: velocity.slice() }
    this.#before.variables.set(variables)
    this.#before.velocity.set(velocity)
    this.#ahead = part
    for (let i = part; i < parts.length; i++) this.#move(i, gradientSum, rate, 1 / count)
    return first
  }

  /** Undoes what was done ahead of an update, if anything was. */
  takeBack(): void {
    const { parts } = this.#parametrisation
    if (this.#ahead === parts.length) return
    const [first] = parts[this.#ahead].parameters
    this.variables.set(this.#before!.variables, first)
    this.velocity.set(this.#before!.velocity, first)
    this.#ahead = parts.length
    this.#derive()
  }

  /**
   * One update.
   *
   * @param gradientSum Sum over the samples of the loss's gradient by the parameters, in the same arena.
   * @param count How many samples the sum is over.
   * @param rate η.
   * @param done Told after each part, from the front: parameters [first, end) are updated. So much can be sent on its way
   *   while the rest is computed. Not told of those that were moved ahead.
   * @returns The global norm of the mean gradient, before clipping and weight decay.
   */
  update(
    gradientSum: Slot,
    count: number,
    rate: number,
    done?: (first: number, end: number) => void,
  ): { gradientNorm: number } {
    const gradientNorm = this.#arena.norm(gradientSum) / count
    const clip = this.#clipNorm
    const scale = (clip > 0 && gradientNorm > clip ? clip / gradientNorm : 1) / count
    for (let part = 0; part < this.#ahead; part++) {
      this.#move(part, gradientSum, rate, scale)
      done?.(...this.#parametrisation.parts[part].parameters)
    }
    this.#ahead = this.#groups.length
    return { gradientNorm }
  }

  /** Moves the variables of a part, and has its parameters follow. */
  #move(part: number, gradientSum: Slot, rate: number, scale: number): void {
    const gradient = this.#gradient ?? gradientSum
    this.#parametrisation.gradient(this.#variables, gradientSum, gradient, part)
    for (const group of this.#groups[part]) {
      this.#rule.move(this.#variables, gradient, group.stretch, group.rate * rate, scale, group.kernel)
    }
    this.#parametrisation.kernels(this.#variables, this.#parameters, part)
  }
}

/** The kernels and what lies between them, in a part of the parameters. */
function groupsOf(
  [partFirst, partEnd]: Stretch,
  kernels: OptimizerOptions['decayed'],
  biasRate: number,
): Group[] {
  const groups: Group[] = []
  let at = partFirst
  const add = (end: number, kernel: boolean) => {
    if (end > at) groups.push({ stretch: [at, end], kernel, rate: kernel ? 1 : biasRate })
    at = Math.max(at, end)
  }
  for (const [offset, size] of kernels) {
    add(Math.min(partEnd, offset), false)
    add(Math.min(partEnd, offset + size), true)
  }
  add(partEnd, false)
  return groups
}
