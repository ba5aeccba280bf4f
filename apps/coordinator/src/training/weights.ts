import type { Arena, Slot } from '@convoy/arena'
import { trainedLayout, type ModelSpec } from '@convoy/model'
import { NesterovSgd } from '@convoy/optim'
import { Parameters, type ParameterFrame } from '../cluster/index.ts'
import type { TrainingConfig } from '../config.ts'
import type { State } from './state.ts'
import { TrainedParameters } from './trained.ts'

/** What the central update changes: the parameters, as workers get them, and what the optimizer has beside them. */
export class Weights {
  readonly #trained: TrainedParameters
  readonly #optimizer: NesterovSgd
  readonly #parameters: Parameters

  /** @param arena Where the optimizer computes: of the size of the trained parameters. */
  constructor(model: ModelSpec, arena: Arena, config: TrainingConfig, start: State) {
    this.#trained = new TrainedParameters(model)
    this.#parameters = new Parameters(start.parameters, start.step ?? 0)
    const { parameters, velocity } = start
    this.#optimizer = new NesterovSgd(
      arena,
      this.#trained.gather(parameters),
      this.#trained.gather(velocity),
      {
        momentum: config.momentum,
        nesterov: config.nesterov,
        weightDecay: config.weightDecay,
        // Biases are left out of the decay: it is there to keep the kernels small.
        decayed: trainedLayout(model)
          .views.filter((view) => view.role === 'kernel')
          .map(({ offset, size }) => [offset, size] as const),
        clipNorm: config.clipNorm,
      },
    )
  }

  /** The parameters, in the form in which they are sent. */
  get frame(): ParameterFrame {
    return this.#parameters.current
  }

  /** The parameters, float32; those of the frame at hand. */
  get values(): Float32Array {
    return this.#parameters.current.values
  }

  /** v, float32, one for each parameter; 0 for those that are frozen. */
  get velocity(): Float32Array {
    return this.#trained.spread(this.#optimizer.velocity)
  }

  /** Whether every trained parameter is a finite number. */
  isFinite(): boolean {
    return this.#optimizer.isFinite()
  }

  /** Goes on from another state of the same run. */
  restore({ step = 0, parameters, velocity }: State): void {
    this.#optimizer.restore(this.#trained.gather(parameters), this.#trained.gather(velocity))
    this.#parameters.advance(step, (next) => {
      next.values.set(parameters)
      next.next(parameters.length)
    })
  }

  /**
   * One update, part by part; each is sent while the next is computed.
   *
   * @param sum Of the gradients of `count` samples, in the arena.
   * @param rate η.
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
      norm = optimizer.update(sum.gradient, sum.count, rate, (first, end) => {
        send(trained.scatter(optimizer.parameters, first, end, next.values))
      }).gradientNorm
    })
    return norm
  }
}
