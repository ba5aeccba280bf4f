import type { Arena, Slot } from '@convoy/arena'
import { TrainedParameters, type ModelSpec } from '@convoy/model'
import { optimizerOf, parametrisationOf, plain, type Optimizer, type Parametrisation } from '@convoy/optim'
import { Parameters, type ParameterFrame } from '../cluster/index.ts'
import type { TrainingConfig } from '../config.ts'
import { optimizerSpecOf, outerOptimizer } from './optimizer.ts'
import { roundsOf } from './rounds.ts'
import type { Moved, State } from './state.ts'

/** What the central update changes: the parameters, as workers get them, and what the optimizer has beside them. */
export class Weights {
  readonly #trained: TrainedParameters
  readonly #parametrisation: Parametrisation
  /** That of every filter of a fresh start; left out where weights were given, which stay as they are. */
  readonly #gain: number | undefined
  readonly #optimizer: Optimizer
  readonly #parameters: Parameters

  /** @param arena Where the optimizer computes: of the size of the trained parameters. */
  constructor(model: ModelSpec, arena: Arena, config: TrainingConfig, start: State) {
    this.#trained = new TrainedParameters(model)
    const rounds = roundsOf(config)
    const spec = optimizerSpecOf(config)
    // What parameters are made of matters to the steps within a round; its end moves the parameters themselves.
    this.#parametrisation = rounds ? plain(arena.size) : parametrisationOf(arena, model, spec)
    this.#gain = config.init === undefined ? 1 : undefined
    const [variables, velocity] = this.#moved(start)
    this.#optimizer = rounds
      ? outerOptimizer(arena, rounds.outerMomentum, variables, velocity)
      : optimizerOf(arena, model, spec, this.#parametrisation, variables, velocity)
    this.#parameters = new Parameters(start.parameters, start.step ?? 0, config.down)
    if (!this.#parametrisation.identity) this.restore(start)
  }

  /** The variables and velocity of a state. */
  #moved({ parameters, variables, velocity }: State): [variables: Float32Array, velocity: Float32Array] {
    if (variables && velocity) return [variables, velocity]
    const made = this.#parametrisation.fromKernels(this.#trained.gather(parameters), this.#gain)
    return [made, velocity ? this.#trained.gather(velocity) : new Float32Array(made.length)]
  }

  /** The parameters, in the form in which they are sent. */
  get frame(): ParameterFrame {
    return this.#parameters.current
  }

  /** The parameters, float32; those of the frame at hand. */
  get values(): Float32Array {
    return this.#parameters.current.values
  }

  /** The present state, but for where training stands. */
  get state(): Moved {
    const { variables, velocity } = this.#optimizer
    const { values: parameters } = this
    return this.#parametrisation.identity
      ? { parameters, velocity: this.#trained.spread(velocity) }
      : { parameters, variables, velocity }
  }

  /** Whether every trained parameter is a finite number. */
  isFinite(): boolean {
    return this.#optimizer.isFinite()
  }

  /** Goes on from another state of the same run. */
  restore(state: State): void {
    this.#optimizer.restore(...this.#moved(state))
    this.#parameters.advance(state.step ?? 0, (next) => {
      next.values.set(state.parameters)
      this.#trained.scatter(this.#optimizer.parameters, 0, this.#trained.size, next.values)
      next.next(next.values.length)
    })
  }

  /**
   * Begins with an update whose gradient is only known from element `cut` on; `update` ends it, or `takeBack`.
   *
   * @param gradient In the arena.
   * @param broadcast Sends the values from a number on to whoever has the present version.
   */
  begin(
    gradient: Slot,
    { cut, count, rate, step }: { cut: number; count: number; rate: number; step: number },
    broadcast: (frame: ParameterFrame, from: number, present: number) => void,
  ): void {
    const optimizer = this.#optimizer
    const first = optimizer.moveAhead(gradient, count, rate, cut)
    if (first === undefined) return
    const next = this.#parameters.begin(step)
    this.#trained.scatter(optimizer.parameters, first, this.#trained.size, next.values)
    broadcast(next, first, this.#parameters.current.version)
  }

  /** Undoes what was begun of an update, if anything was. */
  takeBack(): void {
    this.#optimizer.takeBack()
    this.#parameters.takeBack()
  }

  /**
   * One update, part by part; each is sent while the next is computed.
   *
   * @param sum Of the gradients of `count` samples, or of a round's differences times samples, in the arena.
   * @param rate η; of a round, the outer one.
   * @param step Updates that are done with this one.
   * @param broadcast Begins to send a frame, and returns what is to be told how many of its values are complete.
   * @returns The global norm of the mean gradient.
   */
  update(
    sum: { readonly gradient: Slot; readonly count: number },
    rate: number,
    step: number,
    broadcast: (frame: ParameterFrame) => (complete: number) => void,
  ): number {
    const trained = this.#trained
    const optimizer = this.#optimizer
    let norm = 0
    this.#parameters.advance(step, (next) => {
      // A frame may be new, or from before: what is frozen is the same in all.
      if (trained.partial) next.values.set(this.values)
      const send = broadcast(next)
      const { length } = next.values
      let complete = 0
      norm = optimizer.update(sum.gradient, sum.count, rate, (first, end) => {
        complete = trained.scatter(optimizer.parameters, first, end, next.values)
        send(complete)
      }).gradientNorm
      // What was moved ahead is there.
      if (complete < length) send(length)
    })
    return norm
  }
}
