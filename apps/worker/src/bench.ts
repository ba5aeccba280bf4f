import { augmentationSpec, LeafImages, preprocessingSpec } from '@convoy/data'
import { Masks, PREDICT_BATCH, type CompiledModel, type Engine } from '@convoy/engine'
import { ConvoyError } from '@convoy/errors'
import { gradientCut, parameterLayout, resized, trainedLayout, volume, type ModelSpec } from '@convoy/model'
import { LocalSteps } from '@convoy/optim'
import { SumFrames, type Ahead, type CoordinatorMessage, type MessageOf } from '@convoy/protocol'
import { decode, NodeSummer } from '@convoy/reduction'
import { MessageChannel } from 'node:worker_threads'

type Welcome = MessageOf<CoordinatorMessage, 'welcome'>

const { port1: nowhere } = new MessageChannel()
nowhere.close()
/**
 * Frees a payload that was used: garbage is collected only where tens of megabytes of it lie about. What is sent to a closed
 * port is gone at once; `ArrayBuffer.prototype.transfer` would do, but Node.js 20 has none.
 */
export const free = ({ buffer }: ArrayBufferView) => nowhere.postMessage(undefined, [buffer as ArrayBuffer])

/** A leaf's input, in arrays that are used again. */
export interface Leaf {
  readonly batch: LeafImages
  readonly masks: Masks
}

/** What computes images of one size. */
export interface Plan {
  readonly compiled: CompiledModel
  /** Samples of a leaf. */
  readonly microBatch: number
  /** Two: while an engine computes one, it may take the next in. */
  readonly leaves: readonly Leaf[]
  /** Parameters that the engine holds: after how many updates. */
  step: number
}

/** What a replica takes its steps with. */
interface Local {
  readonly steps: LocalSteps
  /** Steps of a round, and samples of each. */
  readonly count: number
  readonly batchSize: number
  /** Sums the gradients of a step. */
  readonly summer: NodeSummer
  /** All parameters that a round starts from. */
  readonly start: Float32Array
}

/** Everything that belongs to one run: made at its welcome, reused in every step. */
export class Bench {
  readonly welcome: Welcome
  readonly model: ModelSpec
  /** For images as they are: what tests are computed with. */
  readonly full: Plan
  /** For images that are made smaller, by size. */
  readonly smaller: ReadonlyMap<number, Plan>
  readonly summer: NodeSummer
  /** Where steps are rounds. */
  readonly local: Local | undefined
  readonly pixelsPerImage: number
  /** Where a gradient may be cut. */
  readonly cut: number
  /** What answers are made in. */
  readonly frames: SumFrames
  readonly #parameterCount: number
  /** The newest parameters; `sent` where they are used as they came, in a message. */
  #parameters: { readonly step: number; readonly values: Float32Array; readonly sent: boolean } | undefined
  /** Where those to come are put together, if they come rounded or in two messages. */
  #next: Float32Array | undefined
  /** What is there of them. */
  #ahead: Ahead | undefined

  private constructor(welcome: Welcome, full: Plan, smaller: ReadonlyMap<number, Plan>) {
    const { model } = welcome
    this.welcome = welcome
    this.model = model
    this.full = full
    this.smaller = smaller
    const { size } = trainedLayout(model)
    this.summer = new NodeSummer(size)
    this.frames = new SumFrames(size, welcome.seed)
    this.local = localOf(welcome)
    this.pixelsPerImage = volume(model.input)
    this.cut = gradientCut(model)
    this.#parameterCount = parameterLayout(model).size
  }

  /** Compiles the model for every size that the run has. */
  static async open(engine: Engine, welcome: Welcome): Promise<Bench> {
    const { model, microBatch } = welcome
    const full = await makePlan(engine, welcome, model.input[0], microBatch)
    const smaller = new Map<number, Plan>()
    for (const { size, microBatch } of welcome.smaller)
      smaller.set(size, await makePlan(engine, welcome, size, microBatch))
    return new Bench(welcome, full, smaller)
  }

  plan(size: number | undefined): Plan {
    const plan = size === undefined ? this.full : this.smaller.get(size)
    if (!plan) throw new Error(`images of ${size} pixels a side were not announced`)
    return plan
  }

  /**
   * Takes the parameters after `step` updates; a step that is done again comes with other ones. Throws E_MESSAGE where those that
   * went ahead are not here.
   */
  take(step: number, payload: Uint8Array, ahead?: Ahead): void {
    if (ahead && (this.#ahead?.version !== ahead.version || this.#ahead.from !== ahead.from)) {
      throw new ConvoyError('E_MESSAGE', 'parameters came without their end', 'Update the coordinator.')
    }
    this.#ahead = undefined
    const { buffer, byteOffset } = payload
    const old = this.#parameters
    if (old?.sent && this.#keepsParameters) free(old.values)
    if (this.welcome.down === 'float32' && !ahead) {
      const values = new Float32Array(buffer as ArrayBuffer, byteOffset, this.#parameterCount)
      this.#parameters = { step, values, sent: true }
    } else {
      this.#put(payload, 0, ahead?.from ?? this.#parameterCount)
      this.#parameters = { step, values: this.#next!, sent: false }
      this.#next = old?.sent === false ? old.values : undefined
    }
    for (const plan of [this.full, ...this.smaller.values()]) plan.step = -1
  }

  /** Takes what comes ahead of the next parameters. */
  takeTail({ from, version }: Ahead, payload: Uint8Array): void {
    this.#put(payload, from, this.#parameterCount)
    this.#ahead = { from, version }
  }

  /** Has a payload be numbers [first, end) of the next parameters. */
  #put(payload: Uint8Array, first: number, end: number): void {
    const values = (this.#next ??= new Float32Array(this.#parameterCount)).subarray(first, end)
    decode(this.welcome.down, payload, values)
    free(payload)
  }

  /** Forgets the parameters. */
  forget(): void {
    this.#parameters = this.#ahead = undefined
  }

  /** The parameters of a step. Throws where they are not here. */
  parameters(step: number): Float32Array {
    if (this.#parameters?.step !== step) throw new Error(`the parameters of step ${step} are not here`)
    return this.#parameters.values
  }

  /** Has a plan's engine hold the parameters of a step. */
  load(plan: Plan, step: number): void {
    if (this.#parameters?.step === step && plan.step === step) return
    plan.compiled.load(this.parameters(step))
    // With plans of several sizes, a test may follow on the same parameters; in a round, another replica.
    if (!this.#keepsParameters && this.#parameters!.sent) free(this.#parameters!.values)
    plan.step = step
  }

  /** Whether parameters may be loaded more than once: by plans of several sizes, or after the steps of a round. */
  get #keepsParameters(): boolean {
    return this.smaller.size > 0 || this.local !== undefined
  }

  dispose(): void {
    for (const { compiled } of [this.full, ...this.smaller.values()]) compiled.dispose()
  }
}

function localOf({ model, rounds }: MessageOf<CoordinatorMessage, 'welcome'>): Local | undefined {
  if (!rounds) return undefined
  const steps = new LocalSteps(model, rounds.optimizer)
  const { arena, parameters } = steps
  const summer = new NodeSummer(arena.size, arena)
  const start = new Float32Array(parameters.length)
  return { steps, summer, start, count: rounds.steps, batchSize: rounds.batchSize }
}

async function makePlan(engine: Engine, welcome: Welcome, size: number, microBatch: number): Promise<Plan> {
  const { model } = welcome
  const full = size === model.input[0]
  const input = full ? model : resized(model, size)
  const compiled = await engine.compile(input, microBatch)
  const preprocessing = preprocessingSpec.parse(welcome.preprocessing)
  const augmentation = augmentationSpec.parse(welcome.augmentation)
  const most = full ? Math.max(microBatch, PREDICT_BATCH) : microBatch
  const leaves = Array.from({ length: compiled.begin ? 2 : 1 }, () => ({
    batch: new LeafImages(model.input, preprocessing, augmentation, most, size),
    masks: new Masks(input, microBatch),
  }))
  return { compiled, microBatch, leaves, step: -1 }
}
