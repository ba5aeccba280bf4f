import {
  crossEntropy,
  maskRule,
  targets,
  type CompiledModel,
  type DropoutMasks,
  type GradientResult,
  type LabelledImages,
} from '@convoy/engine'
import type { ConvoyError } from '@convoy/errors'
import {
  outputShapes,
  parameterLayout,
  trainedLayout,
  volume,
  type ModelSpec,
  type ParameterView,
} from '@convoy/model'
import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu'
import * as tf from '@tensorflow/tfjs-core'
import { buildNetwork, type Network } from './network.ts'
import { gpuError, RETRIES, type WebgpuDevice } from './webgpu-device.ts'
import { drawMask, type MaskRule } from './webgpu-kernels.ts'

/** What the backend keeps to itself and a copy of many tensors in one piece needs. */
interface Internals {
  readonly commandEncoder: GPUCommandEncoder
}

/** A leaf that the device is at. */
interface Pending {
  readonly batch: LabelledImages
  readonly generation: number
  readonly staging: GPUBuffer
  /** When it can be read; rejects where memory did not suffice or the device was lost. */
  readonly done: Promise<void>
}

/** What is made anew on each device. */
interface OnDevice {
  readonly generation: number
  readonly network: Network
  /** What is trained: its variable, and where its gradient goes. */
  readonly trained: readonly { readonly weight: tf.Variable; readonly offset: number }[]
  /** Where results come down to, when nothing uses them. */
  readonly free: GPUBuffer[]
  loaded: boolean
}

/** A model on the device that there is. */
export class WebgpuModel implements CompiledModel {
  readonly #device: WebgpuDevice
  readonly #model: ModelSpec
  readonly #maxBatch: number
  readonly #views: readonly ParameterView[]
  readonly #gradientSize: number
  readonly #parameters: Float32Array
  /** What each sample's label asks of each class. */
  readonly #targets: Float32Array
  readonly #logitGradient: Float32Array
  readonly #dropouts: readonly (MaskRule & { readonly shape: readonly number[] })[]
  readonly #onDispose: (model: WebgpuModel) => void
  #here: OnDevice | undefined
  #begun: Pending[] = []
  #disposed = false

  constructor(
    device: WebgpuDevice,
    model: ModelSpec,
    maxBatch: number,
    onDispose: (model: WebgpuModel) => void,
  ) {
    this.#device = device
    this.#model = model
    this.#maxBatch = maxBatch
    this.#onDispose = onDispose
    const { views, size } = parameterLayout(model)
    this.#views = views
    this.#parameters = new Float32Array(size)
    this.#gradientSize = trainedLayout(model).size
    this.#targets = new Float32Array(maxBatch * model.classes)
    this.#logitGradient = new Float32Array(maxBatch * model.classes)
    const shapes = outputShapes(model)
    this.#dropouts = model.layers.flatMap((layer, i) =>
      layer.kind === 'dropout' ? [{ ...maskRule(layer.rate), rate: layer.rate, shape: shapes[i] }] : [],
    )
  }

  /** Compiles the shaders, and sees that a leaf fits into the device's memory. Throws E_ENGINE_GPU where it does not. */
  async warmUp(): Promise<void> {
    const { input } = this.#model
    const largest = Math.max(volume(input), ...outputShapes(this.#model).map(volume))
    const bytes = 4 * largest * this.#maxBatch
    const { maxStorageBufferBindingSize: limit } = this.#device.backend.device.limits
    if (bytes > limit) throw this.#tooLarge(`${mb(bytes)} in one piece, and ${mb(limit)} is the most`)
    const batch: LabelledImages = {
      count: this.#maxBatch,
      images: new Float32Array(this.#maxBatch * volume(input)),
      labels: new Int32Array(this.#maxBatch),
    }
    const keys = new Uint32Array(2 * this.#dropouts.length)
    await this.gradient(batch, { values: [], keys }, new Float32Array(this.#gradientSize))
  }

  #tooLarge(why: string): ConvoyError {
    return gpuError(
      `a leaf of ${this.#maxBatch} samples does not fit the GPU's memory: it needs ${why}`,
      'Start the run with a smaller --micro-batch (auto measures what fits), or close what else uses the GPU.',
    )
  }

  load(parameters: Float32Array): void {
    this.#giveUp()
    this.#parameters.set(parameters)
    if (this.#here) this.#here.loaded = false
  }

  begin(batch: LabelledImages, masks: DropoutMasks): void {
    // What cannot be begun is begun when it is asked for, which can wait for a device.
    if (!this.#device.lost) this.#begun.push(this.#submit(batch, masks))
  }

  async gradient(batch: LabelledImages, masks: DropoutMasks, into: Float32Array): Promise<GradientResult> {
    if (this.#begun[0]?.batch !== batch) this.#giveUp()
    for (let attempt = 0; ; attempt++) {
      if (this.#device.lost) await this.#device.reopen()
      let pending = this.#begun.shift()
      if (pending?.generation !== this.#device.generation) {
        this.#giveUp()
        pending = this.#submit(batch, masks)
      }
      try {
        await pending.done
      } catch (error) {
        await this.#settleLoss(error, attempt)
        continue
      }
      return this.#take(pending, into)
    }
  }

  /** Reads what came down. */
  #take({ batch, staging }: Pending, into: Float32Array): GradientResult {
    const size = this.#gradientSize
    const came = new Float32Array(staging.getMappedRange())
    into.set(came.subarray(0, size))
    const result: GradientResult = { loss: 0, correct: 0 }
    const { labels, count } = batch
    crossEntropy(this.#model, came.subarray(size), labels, count, this.#logitGradient, result)
    staging.unmap()
    this.#here?.free.push(staging)
    return result
  }

  async predict(images: Float32Array, count: number, into: Float32Array): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      if (this.#device.lost) await this.#device.reopen()
      const { device } = this.#device.backend
      pushScopes(device)
      const { network } = this.#ready()
      const logits = tf.tidy(() => network.predicting.apply(this.#images(images, count)) as tf.Tensor)
      const came = logits.data<'float32'>()
      try {
        await this.#wait(popScopes(device), came)
        into.set(await came)
        return
      } catch (error) {
        await this.#settleLoss(error, attempt)
      } finally {
        logits.dispose()
      }
    }
  }

  /** Returns where the device was lost, which is worth another attempt; throws the error where it was not. */
  async #settleLoss(error: unknown, attempt: number): Promise<void> {
    // Who hears of the loss first is not said.
    await new Promise((resolve) => setTimeout(resolve, 0))
    if (!this.#device.lost || attempt === RETRIES) throw error
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    this.#giveUp()
    this.#close()
    this.#onDispose(this)
  }

  #close(): void {
    if (!this.#here) return
    for (const weight of this.#here.network.weights) weight.dispose()
    for (const staging of this.#here.free) staging.destroy()
    this.#here = undefined
  }

  /** Forgets what was begun; the device still computes it. */
  #giveUp(): void {
    for (const { done, staging } of this.#begun)
      done.then(
        () => staging.destroy(),
        () => {},
      )
    this.#begun = []
  }

  /** The network on the device that there is, with the parameters in place. */
  #ready(): OnDevice {
    const { generation } = this.#device
    if (this.#here?.generation !== generation) {
      this.#close()
      const network = buildNetwork(this.#model)
      const trained = trainedLayout(this.#model).views.map(({ name, offset }) => ({
        weight: network.weights[this.#views.findIndex((view) => view.name === name)],
        offset,
      }))
      this.#here = { generation, network, trained, free: [], loaded: false }
    }
    const here = this.#here
    if (!here.loaded) {
      tf.tidy(() => {
        this.#views.forEach(({ offset, size, shape }, i) => {
          const values = this.#parameters.subarray(offset, offset + size)
          here.network.weights[i].assign(tf.tensor(values, [...shape]))
        })
      })
      here.loaded = true
    }
    return here
  }

  /** Has the device compute a leaf. Takes what it is given at once. */
  #submit(batch: LabelledImages, masks: DropoutMasks): Pending {
    const { backend, generation } = this.#device
    const { device } = backend
    pushScopes(device)
    const here = this.#ready()
    const { count } = batch
    const staging =
      here.free.pop() ??
      device.createBuffer({
        size: 4 * (this.#gradientSize + this.#maxBatch * this.#model.classes),
        usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST,
      })
    tf.tidy(() => {
      const { network, trained } = here
      const inputs = [this.#images(batch.images, count), ...this.#masks(masks, count)]
      let logits!: tf.Tensor2D
      const { grads } = tf.variableGrads(
        () => {
          logits = tf.keep(network.training.apply(inputs, { training: true }) as tf.Tensor2D)
          return this.#loss(logits, batch)
        },
        trained.map(({ weight }) => weight),
      )
      const results = trained.map(({ weight, offset }) => ({ tensor: grads[weight.name], offset }))
      copyDown(backend, [...results, { tensor: logits, offset: this.#gradientSize }], staging)
      logits.dispose()
    })
    const mapped = staging.mapAsync(GPUMapMode.READ)
    const done = this.#wait(popScopes(device), mapped)
    // Whoever asks for it hears; of what is given up nobody needs to.
    done.catch(() => {})
    return { batch, generation, staging, done }
  }

  async #wait(scopes: readonly Promise<GPUError | null>[], mapped: Promise<unknown>): Promise<void> {
    const [[memory, validation]] = await Promise.all([Promise.all(scopes), mapped])
    if (memory) throw this.#tooLarge(`more than there is (${memory.message})`)
    if (validation)
      throw gpuError(`WebGPU refused a call: ${validation.message}`, 'Use another --engine, and report this.')
  }

  /**
   * A scalar whose gradient by the logits is that of the summed loss. Its value is of no use: the loss is computed outside, in
   * float64, of the logits that come down with the gradient.
   */
  #loss(logits: tf.Tensor2D, { labels, count }: LabelledImages): tf.Scalar {
    const { classes, head } = this.#model
    const [own, other] = targets(this.#model)
    const wanted = this.#targets.subarray(0, count * classes).fill(other)
    for (let sample = 0; sample < count; sample++) wanted[sample * classes + labels[sample]] = own
    const loss = tf.customGrad(() => ({
      value: tf.scalar(0),
      gradFunc: () => {
        const probabilities = head === 'softmax' ? tf.softmax(logits) : tf.sigmoid(logits)
        return tf.sub(probabilities, tf.tensor(wanted, [count, classes]))
      },
    }))
    return loss(logits)
  }

  #images(images: Float32Array, count: number): tf.Tensor {
    return tf.tensor(images.subarray(0, count * volume(this.#model.input)), [count, ...this.#model.input])
  }

  #masks({ keys, ...given }: DropoutMasks, count: number): tf.Tensor[] {
    return this.#dropouts.map((dropout, i) => {
      const shape = [count, ...dropout.shape]
      if (keys) return drawMask(this.#device.backend, shape, dropout, keys.subarray(2 * i, 2 * i + 2))
      const size = count * volume(dropout.shape as [number, number, number])
      const scaled = Float32Array.from(given.values[i].subarray(0, size), (kept) => kept / (1 - dropout.rate))
      return tf.tensor(scaled, shape)
    })
  }
}

/** From here on, what the device has no memory for, or refuses, is kept for `popScopes`, innermost first. */
function pushScopes(device: GPUDevice): void {
  device.pushErrorScope('validation')
  device.pushErrorScope('out-of-memory')
}

const popScopes = (device: GPUDevice) => [device.popErrorScope(), device.popErrorScope()]

/** Has the device copy tensors to where the CPU can read them, each at its offset in numbers. */
function copyDown(
  backend: WebGPUBackend,
  tensors: readonly { readonly tensor: tf.Tensor; readonly offset: number }[],
  staging: GPUBuffer,
): void {
  for (const { tensor } of tensors) backend.uploadToGPU(tensor.dataId)
  backend.ensureCommandEncoderReady()
  backend.endComputePassEncoder()
  const { commandEncoder } = backend as unknown as Internals
  for (const { tensor, offset } of tensors) {
    const { resource } = backend.tensorMap.get(tensor.dataId)
    commandEncoder.copyBufferToBuffer(resource as GPUBuffer, 0, staging, 4 * offset, 4 * tensor.size)
  }
  backend.submitQueue()
}

const mb = (bytes: number) => `${(bytes / 1e6).toFixed(0)} MB`
