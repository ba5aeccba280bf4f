import { parameterLayout, trainedLayout, type ModelSpec } from '@convoy/model'
import { ConvoyError } from '@convoy/errors'
import type {
  CompiledModel,
  DropoutMasks,
  Engine,
  GradientResult,
  LabelledImages,
  NumericsClass,
} from '../engine.ts'
import { loadOnednn, type OnednnLibrary } from './library.ts'
import { crossEntropy } from '../loss.ts'
import { Plan } from './plan.ts'
import type { Profile } from './program.ts'

export interface OnednnOptions {
  /** `auto` is bf16 where the CPU multiplies it, else float32. */
  readonly precision: 'auto' | 'float32' | 'bf16'
  /** Threads of one gradient; the bits depend on it. */
  readonly threads: number
}

/** Plans kept for one model and purpose: that of whole leaves or batches, and those of the last ones. */
const PLANS = 3

type Purpose = 'train' | 'predict'

/**
 * Makes an engine on oneDNN. Throws E_ENGINE where the library is missing, cannot set the threads, or bf16 is asked for
 * on a CPU without it.
 *
 * The engine belongs to the JavaScript thread that made it. Its calls block for as long as they compute, so make it on a
 * thread that has nothing else to do.
 */
export function createOnednnEngine(options: OnednnOptions): Promise<OnednnEngine> {
  return new Promise((resolve) => resolve(create(options)))
}

function create(options: OnednnOptions): OnednnEngine {
  const library = loadOnednn()
  if (options.precision === 'bf16' && !library.bf16) {
    throw new ConvoyError(
      'E_ENGINE',
      `this CPU has no bf16 instructions (oneDNN uses ${library.instructionSet})`,
      'Use --precision float32 or auto.',
    )
  }
  const precision = options.precision === 'auto' ? (library.bf16 ? 'bf16' : 'float32') : options.precision
  library.setThreads(options.threads)
  return new OnednnEngine(library, precision, options.threads)
}

export class OnednnEngine implements Engine {
  readonly numerics: NumericsClass
  readonly description: string
  readonly #library: OnednnLibrary
  readonly #models = new Set<OnednnModel>()

  constructor(library: OnednnLibrary, precision: 'float32' | 'bf16', threads: number) {
    const { version, instructionSet } = library
    this.#library = library
    this.numerics = { engine: 'onednn', version, precision, instructionSet, threads }
    this.description = `oneDNN ${version}, ${precision}, ${instructionSet}, ${threads} thread${threads === 1 ? '' : 's'}`
  }

  compile(model: ModelSpec, maxBatch: number): Promise<OnednnModel> {
    return new Promise((resolve) => resolve(this.#compile(model, maxBatch)))
  }

  #compile(model: ModelSpec, maxBatch: number): OnednnModel {
    const compiled = new OnednnModel(this.#library, model, maxBatch, this.numerics, (closed) =>
      this.#models.delete(closed),
    )
    this.#models.add(compiled)
    return compiled
  }

  dispose(): void {
    for (const model of this.#models) model.dispose()
  }
}

export class OnednnModel implements CompiledModel {
  readonly #library: OnednnLibrary
  readonly #model: ModelSpec
  readonly #maxBatch: number
  readonly #numerics: NumericsClass
  readonly #onDispose: (model: OnednnModel) => void
  readonly #parameters: Float32Array
  readonly #gradientSize: number
  /** By number of samples, the least recently used first. */
  readonly #plans = {
    train: new Map<number, { readonly plan: Plan; fresh: boolean }>(),
    predict: new Map<number, { readonly plan: Plan; fresh: boolean }>(),
  }
  readonly #result: GradientResult = { loss: 0, correct: 0 }

  constructor(
    library: OnednnLibrary,
    model: ModelSpec,
    maxBatch: number,
    numerics: NumericsClass,
    onDispose: (model: OnednnModel) => void,
  ) {
    this.#library = library
    this.#model = model
    this.#maxBatch = maxBatch
    this.#numerics = numerics
    this.#onDispose = onDispose
    this.#parameters = new Float32Array(parameterLayout(model).size)
    this.#gradientSize = trainedLayout(model).size
    this.#plan('train', maxBatch)
  }

  load(parameters: Float32Array): void {
    this.#parameters.set(parameters)
    for (const entry of this.#entries()) entry.fresh = false
  }

  gradient(batch: LabelledImages, masks: DropoutMasks, into: Float32Array): GradientResult {
    this.#check(into.length === this.#gradientSize, `a gradient of ${into.length} numbers`)
    this.#check(batch.count <= this.#maxBatch, `${batch.count} samples`)
    const plan = this.#plan('train', batch.count)
    const logits = plan.forward(batch.images, masks)
    const { head, classes } = this.#model
    const result = crossEntropy(
      head,
      logits,
      batch.labels,
      batch.count,
      classes,
      plan.logitGradients,
      this.#result,
    )
    plan.backward(into)
    return { loss: result.loss, correct: result.correct }
  }

  predict(images: Float32Array, count: number, into: Float32Array): void {
    into.set(this.#plan('predict', count).forward(images))
  }

  /** Adds what each step of a gradient of `count` samples takes to `profile`. */
  profile(count: number, profile: Profile): void {
    this.#plan('train', count).profile(profile)
  }

  /** Bytes of the plans' buffers. */
  get bytes(): number {
    let sum = 4 * this.#parameters.length
    for (const { plan } of this.#entries()) sum += plan.bytes
    return sum
  }

  dispose(): void {
    for (const { plan } of this.#entries()) plan.dispose()
    for (const plans of Object.values(this.#plans)) plans.clear()
    this.#onDispose(this)
  }

  #entries() {
    return [...this.#plans.train.values(), ...this.#plans.predict.values()]
  }

  #check(fits: boolean, what: string): void {
    if (fits) return
    throw new ConvoyError(
      'E_INTERNAL',
      `${what} for a model of ${this.#gradientSize} trained parameters that was compiled for at most ${this.#maxBatch} samples`,
      'This should not happen. Run again with --verbose and report what it prints.',
    )
  }

  /**
   * The plan for exactly `count` samples, with the parameters in place. A larger plan would do for fewer samples, but
   * oneDNN's choices, and so the bits, depend on the size: a leaf's gradient may not depend on which plan was at hand.
   */
  #plan(purpose: Purpose, count: number): Plan {
    this.#check(count >= 1, `${count} samples`)
    // The threads are a setting of the calling thread, and another engine may have changed it.
    this.#library.setThreads(this.#numerics.threads)
    const plans = this.#plans[purpose]
    let entry = plans.get(count)
    if (entry) {
      plans.delete(count)
    } else {
      for (const [other, { plan }] of plans) {
        if (plans.size < PLANS) break
        if (other === this.#maxBatch) continue
        plan.dispose()
        plans.delete(other)
      }
      const { precision } = this.#numerics
      const plan = new Plan(this.#library, this.#model, count, precision, this.#parameters, purpose)
      entry = { plan, fresh: false }
    }
    plans.set(count, entry)
    if (!entry.fresh) {
      entry.plan.load()
      entry.fresh = true
    }
    return entry.plan
  }
}
