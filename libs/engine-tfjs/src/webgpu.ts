import { ConvoyError } from '@convoy/errors'
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
import {
  checkGradient,
  crossEntropy,
  maskRule,
  targets,
  type CompiledModel,
  type DropoutMasks,
  type Engine,
  type GradientResult,
  type LabelledImages,
  type NumericsClass,
} from '@convoy/engine'
import { buildNetwork, type Network } from './network.ts'
import { drawMask, registerWebgpuKernels, type MaskRule } from './webgpu-kernels.ts'

/**
 * The engine on WebGPU: TensorFlow.js's WebGPU backend, with kernels of ours where webgpu-kernels.ts says. Nothing here needs
 * Node.js; whoever makes the engine says where devices come from.
 */

export interface WebgpuOptions {
  /** Opens a device; again where one was lost. Throws E_ENGINE_GPU where there is none. */
  readonly open: () => Promise<WebgpuAdapter>
  /** What compiles shaders, with its version: part of the numerics class. */
  readonly compiler: string
  /** Is told what happened to the device, and what was done. */
  readonly warn: (text: string) => void
}

/** An adapter to open a device on. */
export interface WebgpuAdapter {
  readonly adapter: GPUAdapter
  /** Its name and driver, as part of the numerics class. */
  readonly name: string
  /** Computed by the CPU. */
  readonly software: boolean
}

/** How far off a right gradient of the trial may be. */
const TOLERANCE = 1e-4
/** How often in a row a leaf is computed anew on a new device before that is given up. */
const RETRIES = 3
/** Milliseconds before a device is asked for again. */
const PAUSE = 1000

/** What the backend keeps to itself and a copy of many tensors in one piece needs. */
interface Internals {
  readonly commandEncoder: GPUCommandEncoder
}

const gpuError = (message: string, remedy: string, cause?: unknown) =>
  new ConvoyError('E_ENGINE_GPU', message, remedy, { cause })

/**
 * Makes an engine on WebGPU and has it compute a gradient that is held against the reference. Throws E_ENGINE_GPU where
 * there is no device or that gradient is wrong. One at a time in a thread: TensorFlow.js has one backend of a name.
 */
export async function createWebgpuEngine(options: WebgpuOptions): Promise<WebgpuEngine> {
  tf.enableProdMode()
  const engine = await WebgpuEngine.open(options)
  try {
    await checkGradient(engine, TOLERANCE)
  } catch (error) {
    engine.dispose()
    throw error
  }
  return engine
}

export class WebgpuEngine implements Engine {
  readonly numerics: NumericsClass
  readonly description: string
  readonly #options: WebgpuOptions
  readonly #models = new Set<WebgpuModel>()
  /** Counts the devices; what was made on an older one is gone with it. */
  #generation = 0
  #backend!: WebGPUBackend
  /** Why the device is gone. */
  #lost: string | undefined
  #disposed = false
  #reopening: Promise<void> | undefined

  private constructor(options: WebgpuOptions, { name, software }: WebgpuAdapter) {
    this.#options = options
    this.numerics = {
      engine: 'webgpu',
      version: `${tf.version_core} ${options.compiler}`,
      precision: 'float32',
      instructionSet: name,
      threads: 1,
    }
    const where = software ? `${name}, which the CPU computes` : name
    this.description = `TensorFlow.js ${tf.version_core} on WebGPU (${options.compiler}), float32, ${where}`
  }

  static async open(options: WebgpuOptions): Promise<WebgpuEngine> {
    const adapter = await options.open()
    const engine = new WebgpuEngine(options, adapter)
    await engine.#use(adapter)
    return engine
  }

  get generation(): number {
    return this.#generation
  }

  get backend(): WebGPUBackend {
    return this.#backend
  }

  get lost(): boolean {
    return this.#lost !== undefined
  }

  async #use({ adapter }: WebgpuAdapter): Promise<void> {
    const { limits, info } = adapter as GPUAdapter & { readonly info: GPUAdapterInfo }
    const device = await adapter.requestDevice({
      requiredLimits: {
        maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
        maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxBufferSize: limits.maxBufferSize,
        maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
        maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
      },
    })
    const { WebGPUBackend } = await import('@tensorflow/tfjs-backend-webgpu')
    registerWebgpuKernels()
    // No small tensors by the CPU, and no sums by atomics (split K), whose order is left open.
    tf.env().set('WEBGPU_CPU_FORWARD', false)
    tf.env().set('WEBGPU_MATMUL_PROGRAM_TYPE', 3)
    if (tf.findBackendFactory('webgpu')) tf.removeBackend('webgpu')
    tf.registerBackend('webgpu', () => new WebGPUBackend(device, info))
    if (!(await tf.setBackend('webgpu')))
      throw gpuError('TensorFlow.js does not start on WebGPU', 'Use another --engine.')
    this.#backend = tf.backend() as WebGPUBackend
    this.#lost = undefined
    this.#generation++
    void device.lost.then(({ reason, message }) => {
      if (this.#disposed || this.#backend.device !== device) return
      this.#lost = `${reason} ${message}`.trim()
      this.#options.warn(`the WebGPU device was lost (${this.#lost}); opening it again`)
    })
  }

  /** Opens the device again, once for all who wait for it. Throws E_ENGINE_GPU where it does not come back. */
  reopen(): Promise<void> {
    this.#reopening ??= this.#reopen().finally(() => (this.#reopening = undefined))
    return this.#reopening
  }

  async #reopen(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const adapter = await this.#options.open()
        if (adapter.name !== this.numerics.instructionSet)
          throw gpuError(
            `the device that came back is ${adapter.name}, and no longer ${this.numerics.instructionSet}`,
            'Start the worker again.',
          )
        return await this.#use(adapter)
      } catch (error) {
        if (attempt === RETRIES) throw error
        await new Promise((resolve) => setTimeout(resolve, PAUSE * attempt))
      }
    }
  }

  async compile(model: ModelSpec, maxBatch: number): Promise<WebgpuModel> {
    const compiled = new WebgpuModel(this, model, maxBatch, (closed) => this.#models.delete(closed))
    this.#models.add(compiled)
    try {
      await compiled.warmUp()
    } catch (error) {
      compiled.dispose()
      throw error
    }
    return compiled
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    for (const model of this.#models) model.dispose()
    const { device } = this.#backend
    tf.removeBackend('webgpu')
    device.destroy()
  }
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

export class WebgpuModel implements CompiledModel {
  readonly #engine: WebgpuEngine
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
    engine: WebgpuEngine,
    model: ModelSpec,
    maxBatch: number,
    onDispose: (model: WebgpuModel) => void,
  ) {
    this.#engine = engine
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
    const { maxStorageBufferBindingSize: limit } = this.#engine.backend.device.limits
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
    if (!this.#engine.lost) this.#begun.push(this.#submit(batch, masks))
  }

  async gradient(batch: LabelledImages, masks: DropoutMasks, into: Float32Array): Promise<GradientResult> {
    if (this.#begun[0]?.batch !== batch) this.#giveUp()
    for (let attempt = 0; ; attempt++) {
      if (this.#engine.lost) await this.#engine.reopen()
      let pending = this.#begun.shift()
      if (pending?.generation !== this.#engine.generation) {
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
      if (this.#engine.lost) await this.#engine.reopen()
      const { device } = this.#engine.backend
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
    if (!this.#engine.lost || attempt === RETRIES) throw error
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
    const { generation } = this.#engine
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
    const { backend, generation } = this.#engine
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
      if (keys) return drawMask(this.#engine.backend, shape, dropout, keys.subarray(2 * i, 2 * i + 2))
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
