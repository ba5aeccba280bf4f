import { Arena, type Slot } from '@convoy/arena'
import { parameterLayout, TrainedParameters, type ModelSpec } from '@convoy/model'
import { optimizerOf, parametrisationOf, type OptimizerSpec } from './of-model.ts'
import type { Optimizer } from './optimizer.ts'
import type { Parametrisation } from './parametrisation.ts'

/**
 * The steps that one replica takes by itself in a round, from parameters that all have (local SGD: Stich, "Local SGD Converges Fast and
 * Communicates Little", 2019). Momentum starts from zero, so that nothing but the parameters and the samples decides where it ends.
 * All arrays are made once.
 */
export class LocalSteps {
  /** Where gradients are to be summed. */
  readonly arena: Arena
  /** All parameters as they are by now, float32. */
  readonly parameters: Float32Array
  readonly #trained: TrainedParameters
  readonly #parametrisation: Parametrisation
  readonly #optimizer: Optimizer
  /** The trained parameters at the beginning. */
  readonly #before: Float32Array

  constructor(model: ModelSpec, spec: OptimizerSpec) {
    this.#trained = new TrainedParameters(model)
    this.arena = new Arena(this.#trained.size)
    this.parameters = new Float32Array(parameterLayout(model).size)
    this.#before = new Float32Array(this.#trained.size)
    this.#parametrisation = parametrisationOf(this.arena, model, spec)
    const nothing = new Float32Array(this.#parametrisation.size)
    this.#optimizer = optimizerOf(this.arena, model, spec, this.#parametrisation, nothing, nothing)
  }

  /** Starts a round from all these parameters, float32. */
  begin(parameters: Float32Array): void {
    this.parameters.set(parameters)
    const variables = this.#parametrisation.fromKernels(this.#trained.gather(parameters, this.#before))
    this.#optimizer.restore(variables, this.#optimizer.velocity.fill(0))
    this.#place()
  }

  /**
   * One step.
   *
   * @param sum Of the gradients of `count` samples, in the arena.
   * @param rate η
   */
  update(sum: Slot, count: number, rate: number): void {
    this.#optimizer.update(sum, count, rate)
    this.#place()
  }

  /**
   * What the round has moved the trained parameters by, times a number of samples: count·(before - after), float32. So summed over
   * replicas and divided by all their samples, it is their mean, and points where a gradient does.
   */
  difference(count: number, into: Float32Array): void {
    const before = this.#before
    const after = this.#optimizer.parameters
    for (let i = 0; i < before.length; i++) into[i] = count * (before[i] - after[i])
  }

  #place(): void {
    this.#trained.scatter(this.#optimizer.parameters, 0, this.#trained.size, this.parameters)
  }
}
