import {
  outputShapes,
  parameterLayout,
  trainedLayout,
  volume,
  type ModelSpec,
  type ParameterView,
} from '@convoy/model'
import * as tf from '@tensorflow/tfjs-core'
import {
  crossEntropy,
  type CompiledModel,
  type DropoutMasks,
  type Engine,
  type GradientResult,
  type LabelledImages,
  type NumericsClass,
} from '@convoy/engine'
import { prepareBackend, type Backend } from './backend.ts'
import { buildNetwork, type Network } from './network.ts'

export interface TfjsOptions {
  /** `cpu` is the oracle that other engines are tested against. */
  readonly backend: Backend
  /** Refuse to run unless on a GPU. */
  readonly gpu: boolean
  /** Other than 1 only on `tensorflow`, and the same for all engines of a process. */
  readonly threads?: number
}

/** Makes an engine on TensorFlow.js. Throws E_ENGINE or E_ENGINE_GPU. */
export async function createTfjsEngine(options: TfjsOptions): Promise<TfjsEngine> {
  const { backend, gpu } = options
  const { version, instructionSet, threads, text } = await prepareBackend(backend, gpu, options.threads)
  const numerics: NumericsClass = {
    engine: `tfjs-${backend}`,
    version,
    precision: 'float32',
    instructionSet,
    threads,
  }
  return new TfjsEngine(backend, numerics, `TensorFlow.js ${tf.version_core}, float32, ${text}`)
}

export class TfjsEngine implements Engine {
  readonly numerics: NumericsClass
  readonly description: string
  readonly #backend: Backend
  readonly #models = new Set<TfjsModel>()

  constructor(backend: Backend, numerics: NumericsClass, description: string) {
    this.#backend = backend
    this.numerics = numerics
    this.description = description
  }

  async compile(model: ModelSpec, maxBatch: number): Promise<TfjsModel> {
    const compiled = new TfjsModel(this.#backend, model, maxBatch)
    this.#models.add(compiled)
    return compiled
  }

  dispose(): void {
    for (const model of this.#models) model.dispose()
  }
}

export class TfjsModel implements CompiledModel {
  readonly #backend: Backend
  readonly #model: ModelSpec
  readonly #views: readonly ParameterView[]
  readonly #network: Network
  /** What is trained: its variable, and where its gradient goes. */
  readonly #trained: readonly { readonly weight: tf.Variable; readonly offset: number }[]
  /** The parameters, in an array of this model's own: on `cpu` the weights are views of it. */
  readonly #parameters: Float32Array
  /** Receives the gradient of the loss by the logits. */
  readonly #logitGradient: Float32Array
  readonly #dropouts: readonly {
    readonly shape: [number, number, number]
    readonly scale: number
    /** The leaf's mask, times the scale. */
    readonly scaled: Float32Array
  }[]
  #disposed = false

  constructor(backend: Backend, model: ModelSpec, maxBatch: number) {
    this.#backend = backend
    this.#model = model
    const layout = parameterLayout(model)
    this.#views = layout.views
    this.#parameters = new Float32Array(layout.size)
    this.#logitGradient = new Float32Array(maxBatch * model.classes)
    const shapes = outputShapes(model)
    this.#dropouts = model.layers.flatMap((layer, i) => {
      if (layer.kind !== 'dropout') return []
      const scaled = new Float32Array(maxBatch * volume(shapes[i]))
      return [{ shape: [...shapes[i]] as [number, number, number], scale: 1 / (1 - layer.rate), scaled }]
    })
    this.#select()
    this.#network = buildNetwork(model)
    this.#trained = trainedLayout(model).views.map(({ name, offset }) => ({
      weight: this.#network.weights[layout.views.findIndex((view) => view.name === name)],
      offset,
    }))
  }

  /** TensorFlow.js has one backend at a time; several engines may share a process. */
  #select(): void {
    if (tf.getBackend() !== this.#backend) void tf.setBackend(this.#backend)
  }

  load(parameters: Float32Array): void {
    this.#select()
    this.#parameters.set(parameters)
    tf.tidy(() => {
      this.#views.forEach(({ offset, size, shape }, i) => {
        const values = this.#parameters.subarray(offset, offset + size)
        this.#network.weights[i].assign(tf.tensor(values, [...shape]))
      })
    })
  }

  gradient(batch: LabelledImages, masks: DropoutMasks, into: Float32Array): GradientResult {
    this.#select()
    const { classes } = this.#model
    const { count, labels } = batch
    const result: GradientResult = { loss: 0, correct: 0 }
    tf.tidy(() => {
      const inputs = [this.#images(batch.images, count), ...this.#masks(masks, count)]
      const { grads } = tf.variableGrads(
        () => {
          const logits = this.#network.training.apply(inputs, { training: true }) as tf.Tensor
          // The loss of so few numbers is computed outside, in float64. What is differentiated is the sum of the logits,
          // each times its gradient taken as a constant: that has the same gradient by the parameters.
          const gradient = this.#logitGradient.subarray(0, count * classes)
          crossEntropy(this.#model, logits.dataSync() as Float32Array, labels, count, gradient, result)
          return tf.sum<tf.Scalar>(tf.mul(logits, tf.tensor(gradient, [count, classes])))
        },
        this.#trained.map(({ weight }) => weight),
      )
      for (const { weight, offset } of this.#trained) into.set(grads[weight.name].dataSync(), offset)
    })
    return result
  }

  predict(images: Float32Array, count: number, into: Float32Array): void {
    this.#select()
    tf.tidy(() => {
      const logits = this.#network.predicting.apply(this.#images(images, count)) as tf.Tensor
      into.set(logits.dataSync())
    })
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#select()
    for (const weight of this.#network.weights) weight.dispose()
  }

  // No copies: what is given to these two is read before the call ends, and the tensors do not outlive it.

  #images(images: Float32Array, count: number): tf.Tensor {
    return tf.tensor(images.subarray(0, count * volume(this.#model.input)), [count, ...this.#model.input])
  }

  #masks({ values: masks }: DropoutMasks, count: number): tf.Tensor[] {
    return this.#dropouts.map(({ shape, scale, scaled }, i) => {
      const values = scaled.subarray(0, count * volume(shape))
      const mask = masks[i]
      for (let at = 0; at < values.length; at++) values[at] = mask[at] * scale
      return tf.tensor(values, [count, ...shape])
    })
  }
}
