import { ConvoyError } from '@convoy/errors'
import { parameterLayout, trainedLayout, type ModelSpec } from '@convoy/model'
import {
  checkGradient,
  Plans,
  type CompiledModel,
  type DropoutMasks,
  type Engine,
  type GradientResult,
  type LabelledImages,
  type NumericsClass,
  type Purpose,
  type SizedPlan,
} from '@convoy/engine'
import { Gpu, LANES, Session } from './gpu.ts'
import { Plan } from './plan.ts'

type Precision = 'float32' | 'tf32' | 'bf16'

export interface CudnnOptions {
  /** `auto` is bf16 where the GPU multiplies it (compute capability 8.0 and later), else float32. */
  readonly precision: 'auto' | Precision
  /** Which GPU, from 0. */
  readonly device: number
}

/** The first GPUs whose tensor cores take bf16 and TF32. */
const AMPERE = 80

/**
 * Makes an engine on one NVIDIA GPU and has it compute a gradient that is held against the CPU's. Throws E_ENGINE_GPU where
 * driver, library or GPU are missing, cannot do the precision, or that gradient is wrong.
 *
 * The engine belongs to the JavaScript thread that made it, and blocks it while the GPU computes.
 */
export async function createCudnnEngine(options: CudnnOptions): Promise<CudnnEngine> {
  const gpu = new Gpu(options.device)
  const able = gpu.capability >= AMPERE
  const precision = options.precision === 'auto' ? (able ? 'bf16' : 'float32') : options.precision
  const engine = new CudnnEngine(gpu, precision, options.device)
  try {
    if (precision !== 'float32' && !able) {
      throw new ConvoyError(
        'E_ENGINE_GPU',
        `${gpu.name} has no ${precision} (its compute capability is ${gpu.capability / 10}, and 8.0 is needed)`,
        'Use --precision float32 or auto.',
      )
    }
    await checkGradient(engine, TOLERANCE[precision])
  } catch (error) {
    engine.dispose()
    throw error
  }
  return engine
}

/** How far off a right gradient of the trial may be. */
const TOLERANCE: Record<Precision, number> = { float32: 1e-4, tf32: 1e-2, bf16: 5e-2 }

export class CudnnEngine implements Engine {
  readonly numerics: NumericsClass
  readonly #gpu: Gpu
  readonly #precision: Precision
  readonly #ordinal: number
  readonly #models = new Set<CudnnModel>()

  /** @param gpu Is disposed of with the engine. */
  constructor(gpu: Gpu, precision: Precision, ordinal: number) {
    this.#gpu = gpu
    this.#precision = precision
    this.numerics = {
      engine: 'cudnn',
      version: gpu.version,
      precision,
      instructionSet: `${gpu.name} sm_${gpu.capability}`,
      threads: 1,
    }
    this.#ordinal = ordinal
  }

  get description(): string {
    const { version, name, records } = this.#gpu
    const slow = records ? '' : ', its steps cannot be recorded as graphs'
    return `cuDNN ${version}, ${this.#precision}, ${name} (GPU ${this.#ordinal})${slow}`
  }

  async compile(model: ModelSpec, maxBatch: number): Promise<CudnnModel> {
    const compiled = new CudnnModel(this.#gpu, model, maxBatch, this.#precision, (closed) =>
      this.#models.delete(closed),
    )
    this.#models.add(compiled)
    return compiled
  }

  dispose(): void {
    for (const model of this.#models) model.dispose()
    this.#gpu.dispose()
  }
}

/** The lane of a session that new parameters take. */
const LOADING = LANES

/** A plan with its memory on the device. */
class Ready implements SizedPlan {
  readonly plan: Plan
  readonly #session: Session
  readonly #parameters: Float32Array
  readonly #classes: number

  constructor(
    gpu: Gpu,
    model: ModelSpec,
    count: number,
    precision: Precision,
    purpose: Purpose,
    parameters: Float32Array,
  ) {
    this.#parameters = parameters
    this.#classes = model.classes
    this.plan = new Plan(gpu.choose, model, count, precision, purpose)
    this.#session = new Session(gpu, this.plan, purpose === 'train' ? LANES : 1)
  }

  load(): void {
    const { parameters, load } = this.plan
    new Float32Array(this.#session.host(LOADING, parameters)).set(this.#parameters)
    this.#session.start(LOADING, { uploads: [], calls: load })
  }

  /** Takes a leaf in and starts computing its gradient. */
  begin(lane: number, batch: LabelledImages, masks: DropoutMasks): void {
    const { plan } = this
    const { count, stored, labels } = batch
    if (stored) {
      const { pixels, table, variations } = stored
      const bytes = new Uint8Array(this.#session.host(lane, plan.pixels))
      const each = plan.pixels.size / count
      for (let sample = 0; sample < count; sample++) bytes.set(pixels[sample], sample * each)
      new Float32Array(this.#session.host(lane, plan.table)).set(table)
      new Int32Array(this.#session.host(lane, plan.variations)).set(variations.subarray(0, 3 * count))
    } else this.#give(lane, batch.images)
    new Int32Array(this.#session.host(lane, plan.labels)).set(labels.subarray(0, count))
    const drawn = masks.keys !== undefined
    if (drawn) {
      if (plan.masks.length > 0) new Uint32Array(this.#session.host(lane, plan.keys)).set(masks.keys)
    } else {
      plan.masks.forEach((mask, i) => {
        new Uint8Array(this.#session.host(lane, mask)).set(masks.values[i].subarray(0, mask.size))
      })
    }
    this.#session.start(lane, plan.steps[stored ? 'stored' : 'given'][drawn ? 'drawn' : 'given'])
  }

  /** Waits for what was begun. */
  finish(lane: number, count: number, into: Float32Array): GradientResult {
    into.set(new Float32Array(this.#session.host(lane, this.plan.gradient)))
    const results = new Float64Array(this.#session.host(lane, this.plan.results))
    const totals = { loss: 0, correct: 0 }
    for (let sample = 0; sample < count; sample++) {
      totals.loss += results[2 * sample]
      totals.correct += results[2 * sample + 1]
    }
    return totals
  }

  predict(images: Float32Array, count: number, into: Float32Array): void {
    this.#give(0, images)
    this.#session.start(0, this.plan.steps.given.given)
    into.set(new Float32Array(this.#session.host(0, this.plan.logits), 0, count * this.#classes))
  }

  dispose(): void {
    this.#session.dispose()
  }

  #give(lane: number, images: Float32Array): void {
    const { images: tensor } = this.plan
    new Float32Array(this.#session.host(lane, tensor)).set(images.subarray(0, tensor.size))
  }
}

export class CudnnModel implements CompiledModel {
  readonly #parameters: Float32Array
  readonly #gradientSize: number
  readonly #plans: Plans<Ready>
  readonly #onDispose: (model: CudnnModel) => void
  /** What was begun and not yet asked for, the oldest first. */
  #begun: { readonly batch: LabelledImages; readonly plan: Ready; readonly lane: number }[] = []

  constructor(
    gpu: Gpu,
    model: ModelSpec,
    maxBatch: number,
    precision: Precision,
    onDispose: (model: CudnnModel) => void,
  ) {
    this.#parameters = new Float32Array(parameterLayout(model).size)
    this.#gradientSize = trainedLayout(model).size
    this.#onDispose = onDispose
    this.#plans = new Plans(
      maxBatch,
      (count, purpose) => new Ready(gpu, model, count, precision, purpose, this.#parameters),
    )
    try {
      this.#plans.take(maxBatch, 'train')
    } catch (error) {
      this.dispose()
      throw error
    }
  }

  load(parameters: Float32Array): void {
    this.#begun = []
    this.#parameters.set(parameters)
    this.#plans.outdate()
  }

  begin(batch: LabelledImages, masks: DropoutMasks): void {
    this.#begin(batch, masks, { length: this.#gradientSize })
  }

  #begin(batch: LabelledImages, masks: DropoutMasks, into: { readonly length: number }): void {
    const plan = this.#plans.takeForGradient(batch.count, into, this.#gradientSize)
    // A lane that is taken belongs to the leaf before.
    const taken = this.#begun.at(-1)
    const lane = taken?.plan === plan ? 1 - taken.lane : 0
    plan.begin(lane, batch, masks)
    this.#begun.push({ batch, plan, lane })
  }

  gradient(batch: LabelledImages, masks: DropoutMasks, into: Float32Array): GradientResult {
    if (this.#begun[0]?.batch !== batch || into.length !== this.#gradientSize) {
      this.#begun = []
      this.#begin(batch, masks, into)
    }
    const { plan, lane } = this.#begun.shift()!
    return plan.finish(lane, batch.count, into)
  }

  predict(images: Float32Array, count: number, into: Float32Array): void {
    this.#plans.take(count, 'predict').predict(images, count, into)
  }

  dispose(): void {
    this.#begun = []
    this.#plans.dispose()
    this.#onDispose(this)
  }
}
