import { parameterLayout, trainedLayout, type ModelSpec } from '@convoy/model'
import { ConvoyError } from '@convoy/errors'
import {
  crossEntropy,
  Plans,
  type CompiledModel,
  type DropoutMasks,
  type Engine,
  type GradientResult,
  type LabelledImages,
  type NumericsClass,
  type TailListener,
} from '@convoy/engine'
import { loadOnednn, type OnednnLibrary } from './library.ts'
import { Plan } from './plan.ts'
import type { Profile } from './program.ts'
import { Scratch } from './scratch.ts'

export interface OnednnOptions {
  /** `auto` is bf16 where the CPU multiplies faster with it, else float32. */
  readonly precision: 'auto' | 'float32' | 'bf16'
  /** Threads of one gradient; the bits depend on it. */
  readonly threads: number
}

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
  const precision = options.precision === 'auto' ? library.faster : options.precision
  library.setThreads(options.threads)
  return new OnednnEngine(library, precision, options.threads)
}

export class OnednnEngine implements Engine {
  readonly numerics: NumericsClass
  readonly description: string
  readonly #library: OnednnLibrary
  readonly #precision: 'float32' | 'bf16'
  readonly #models = new Set<OnednnModel>()

  constructor(library: OnednnLibrary, precision: 'float32' | 'bf16', threads: number) {
    const { version, instructionSet } = library
    this.#library = library
    this.#precision = precision
    this.numerics = { engine: 'onednn', version, precision, instructionSet, threads }
    this.description = `oneDNN ${version}, ${precision}, ${instructionSet}, ${threads} thread${threads === 1 ? '' : 's'}`
  }

  compile(model: ModelSpec, maxBatch: number): Promise<OnednnModel> {
    return new Promise((resolve) => resolve(this.#compile(model, maxBatch)))
  }

  #compile(model: ModelSpec, maxBatch: number): OnednnModel {
    const { threads } = this.numerics
    const settings = { precision: this.#precision, threads }
    const compiled = new OnednnModel(this.#library, model, maxBatch, settings, (closed) =>
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
  readonly #threads: number
  readonly #onDispose: (model: OnednnModel) => void
  readonly #parameters: Float32Array
  readonly #gradientSize: number
  readonly #plans: Plans<Plan>
  readonly #result: GradientResult = { loss: 0, correct: 0 }

  constructor(
    library: OnednnLibrary,
    model: ModelSpec,
    maxBatch: number,
    { precision, threads }: { readonly precision: 'float32' | 'bf16'; readonly threads: number },
    onDispose: (model: OnednnModel) => void,
  ) {
    this.#library = library
    this.#model = model
    this.#threads = threads
    this.#onDispose = onDispose
    this.#parameters = new Float32Array(parameterLayout(model).size)
    this.#gradientSize = trainedLayout(model).size
    const scratch = new Scratch()
    this.#plans = new Plans(
      maxBatch,
      (count, purpose) => new Plan(library, model, count, precision, this.#parameters, purpose, scratch),
    )
    this.#setThreads()
    this.#plans.take(maxBatch, 'train')
  }

  load(parameters: Float32Array): void {
    this.#parameters.set(parameters)
    this.#plans.outdate()
  }

  gradient(
    batch: LabelledImages,
    masks: DropoutMasks,
    into: Float32Array,
    tail?: TailListener,
  ): GradientResult {
    this.#setThreads()
    const plan = this.#plans.takeForGradient(batch.count, into, this.#gradientSize)
    const logits = plan.forward(batch.images, masks.values)
    const { labels, count } = batch
    const result = crossEntropy(this.#model, logits, labels, count, plan.logitGradients, this.#result)
    plan.backward(into, tail)
    return { loss: result.loss, correct: result.correct }
  }

  predict(images: Float32Array, count: number, into: Float32Array): void {
    this.#setThreads()
    into.set(this.#plans.take(count, 'predict').forward(images))
  }

  /** Adds what each step of a gradient of `count` samples takes to `profile`. */
  profile(count: number, profile: Profile): void {
    this.#setThreads()
    this.#plans.take(count, 'train').profile(profile)
  }

  dispose(): void {
    this.#plans.dispose()
    this.#onDispose(this)
  }

  /** The threads are a setting of the calling thread, and another engine may have changed it. */
  #setThreads(): void {
    this.#library.setThreads(this.#threads)
  }
}
