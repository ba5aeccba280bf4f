import { Arena } from '@convoy/arena'
import { epochOfAccuracy, type Convergence, type Judgement } from '@convoy/convergence'
import { epochOrder, batchRange, stepCount, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { trainedLayout, trainedRanges, type ModelSpec, type TrainedRange } from '@convoy/model'
import { learningRate, NesterovSgd, type Schedule } from '@convoy/optim'
import { createHash } from 'node:crypto'
import { WorkersWanted, type Cluster, Parameters } from '../cluster/index.ts'
import { Batch } from './batch.ts'
import type { TrainingConfig } from '../config.ts'
import { DivergenceGuard, type Divergence, type GuardState } from './divergence.ts'
import { Evaluation, type Score } from './evaluation.ts'
import type { Report } from '../events.ts'
import { Ledger, type Entry } from './ledger.ts'

/** The most workers that are ever wanted. */
const MOST_WORKERS = 64

/** Where training stands: all that changes from step to step. */
export interface Progress {
  /** Updates done. */
  step: number
  /** Epochs done. */
  epoch: number
  /** Sums over the samples of the running epoch. */
  epochLoss: number
  epochCorrect: number
  epochSamples: number
  /** Seconds of training so far, in all sessions. */
  seconds: number
  /** What the schedule's rate is multiplied by. */
  rateFactor: number
  /** The step from which on that is so; undefined where the rate was never lowered. */
  loweredAt?: number | undefined
  guard: GuardState
}

/** What `run` ends with where the training has to go back: to a state of this step or an earlier one. */
export interface Rewind {
  readonly to: number
  /** The rate's further factor from there on. */
  readonly rateFactor: number
  readonly reason: string
}

/** Halvings of the rate before a run that keeps diverging is given up. */
const MOST_HALVINGS = 6

export interface TrainingInput {
  readonly config: TrainingConfig
  readonly model: ModelSpec
  readonly dataset: Dataset
  readonly cluster: Cluster
  readonly report: Report
  /** Test after so many epochs; 0 is only at the end. */
  readonly evaluateEvery: number
  /** The share of a step that one more worker must save to be wanted. */
  readonly worth: number
  /** Stop after so many updates, whatever the epoch. */
  readonly steps: number | undefined
  /** Stop at a test with this accuracy, a share of 1. */
  readonly until: number | undefined
  /** The tests so far. */
  readonly tests: readonly Test[]
  /** Parameters and velocity to start from. */
  readonly start: State
  /** Reads the cost curve; holds that of the run so far. */
  readonly convergence: Convergence
  /** Told after each update which samples it used, and who computed them. */
  readonly used?: (step: number, samples: Uint32Array, nodes: readonly Entry[]) => void
}

/** A test of the run. */
export interface Test {
  readonly step: number
  readonly epoch: number
  readonly accuracy: number
}

/** A state to start from; what it does not say is as at the beginning. */
export interface State extends Partial<Progress> {
  /** float32, one for each parameter, as are the velocities. */
  readonly parameters: Float32Array
  readonly velocity: Float32Array
}

function progressOf(start: State): Progress {
  const { step = 0, epoch = 0, epochLoss = 0, epochCorrect = 0, epochSamples = 0, seconds = 0 } = start
  const { rateFactor = 1, guard = { sum: 0, samples: 0, windows: 0, best: null } } = start
  const { loweredAt } = start
  return {
    ...{ step, epoch, epochLoss, epochCorrect, epochSamples, seconds, rateFactor, loweredAt },
    guard: { ...guard },
  }
}

/** The schedule that a config describes. */
export function scheduleOf(config: TrainingConfig): Schedule {
  const { learningRate: rate, decay, c1, c2, milestones, warmup } = config
  switch (config.schedule) {
    case 'constant':
      return { kind: 'constant', rate }
    case 'decay':
      return { kind: 'decay', rate, decay }
    case 'inverse':
      return { kind: 'inverse', c1, c2 }
    case 'steps':
      return { kind: 'steps', rate, milestones, factor: 0.1 }
    case 'oneCycle':
      return { kind: 'oneCycle', rate, warmup }
  }
}

/** Synchronous data-parallel training: each step is the gradient of one batch from the cluster, then one update. */
export class Training {
  progress: Progress
  readonly parameters: Parameters
  readonly optimizer: NesterovSgd
  readonly stepsPerEpoch: number
  readonly batchSize: number
  readonly totalSteps: number
  /** The mean loss and accuracy of the epoch that ended last. */
  trainLoss = NaN
  /** The last test of this session. */
  score: Score | undefined
  /** Samples and seconds of training in this session, for images/s. */
  sessionSamples = 0
  sessionSeconds = 0
  /** How many workers the run is worth, from its steps so far. */
  readonly workersWanted: WorkersWanted
  readonly #input: TrainingInput
  readonly #batch: Batch
  readonly #schedule: Schedule
  /** Which parameters the optimizer has, and where. */
  readonly #trained: readonly TrainedRange[]
  readonly #ledger: Ledger
  readonly #guard: DivergenceGuard
  /** The run's tests up to where it stands. */
  #tests: readonly Test[]
  #stopped = false
  #rewind: Rewind | undefined
  #diverged: ConvoyError | undefined
  /** At which steps this session lowered the rate, and to which factor. */
  readonly #lowered = new Map<number, number>()

  constructor(input: TrainingInput) {
    const { config, dataset, model, start } = input
    this.#input = input
    this.#tests = input.tests
    this.workersWanted = new WorkersWanted(input.worth, MOST_WORKERS)
    this.batchSize =
      config.batchSize === 'full' ? dataset.train.count : Math.min(config.batchSize, dataset.train.count)
    this.stepsPerEpoch = stepCount(dataset.train.count, this.batchSize)
    this.totalSteps = this.stepsPerEpoch * config.epochs
    this.progress = progressOf(start)
    this.parameters = new Parameters(start.parameters, this.progress.step)
    const { views, size } = trainedLayout(model)
    this.#trained = trainedRanges(model)
    const arena = new Arena(size)
    this.optimizer = new NesterovSgd(arena, this.#gather(start.parameters), this.#gather(start.velocity), {
      momentum: config.momentum,
      nesterov: config.nesterov,
      weightDecay: config.weightDecay,
      // Biases are left out of the decay: it is there to keep the kernels small.
      decayed: views
        .filter((view) => view.role === 'kernel')
        .map(({ offset, size }) => [offset, size] as const),
      clipNorm: config.clipNorm,
    })
    this.#batch = new Batch(dataset, arena, config)
    this.#schedule = scheduleOf(config)
    this.#ledger = new Ledger(dataset.train.count)
    // Guessing costs ln(classes) with a softmax, and classes·ln(2) with a sigmoid for each class.
    const { classes, head } = model
    this.#guard = new DivergenceGuard(
      head === 'softmax' ? Math.log(classes) : classes * Math.LN2,
      config.deadAfter,
    )
    this.#takeUp()
  }

  /** Goes on from another state of the same run. */
  restore(state: State): void {
    this.progress = progressOf(state)
    this.optimizer.restore(this.#gather(state.parameters), this.#gather(state.velocity))
    this.parameters.advance(this.progress.step, (next) => {
      next.values.set(state.parameters)
      next.next(state.parameters.length)
    })
    this.#takeUp()
  }

  /**
   * Has the schedule's rate multiplied by `factor` from step `at` on. Where the present state is an earlier one, since the disk
   * refused the later, the steps up to there are repeated as they were.
   */
  lowerRate(at: number, factor: number): void {
    for (const step of this.#lowered.keys()) if (step > at) this.#lowered.delete(step)
    this.#lowered.set(at, factor)
    this.#lowerWhenDue()
  }

  #lowerWhenDue(): void {
    const { progress } = this
    const factor = this.#lowered.get(progress.step)
    if (factor === undefined) return
    progress.rateFactor = factor
    progress.loweredAt = progress.step
  }

  /** As if the rate had never been lowered. */
  forgetRates(): void {
    this.#lowered.clear()
  }

  /** v, float32, one for each parameter; 0 for those that are frozen. */
  get velocity(): Float32Array {
    const { velocity } = this.optimizer
    if (!this.#frozen) return velocity
    const all = new Float32Array(this.parameters.size)
    this.#scatter(velocity, 0, velocity.length, all)
    return all
  }

  get #frozen(): boolean {
    return this.#trained.length > 1 || this.#trained[0].size < this.parameters.size
  }

  /** The numbers of the trained parameters alone. */
  #gather(all: Float32Array): Float32Array {
    const trained = new Float32Array(this.#trained.reduce((sum, { size }) => sum + size, 0))
    for (const { parameter, gradient, size } of this.#trained)
      trained.set(all.subarray(parameter, parameter + size), gradient)
    return trained
  }

  /** Puts numbers [first, end) of the trained parameters into their places, and returns up to where all is in place. */
  #scatter(trained: Float32Array, first: number, end: number, all: Float32Array): number {
    for (const { parameter, gradient, size } of this.#trained) {
      const from = Math.max(first, gradient)
      const to = Math.min(end, gradient + size)
      if (from < to) all.set(trained.subarray(from, to), parameter + from - gradient)
      // The next ones begin here.
      if (end < gradient + size) return parameter + end - gradient
    }
    return all.length
  }

  /** Has ledger, guard and the reading of the curve continue from `progress`. */
  #takeUp(): void {
    const { config, dataset } = this.#input
    const { step, epoch, epochSamples, guard } = this.progress
    this.#input.convergence.takeBack(step)
    this.#ledger.begin(epochOrder(config.seed, epoch, dataset.train.count).subarray(0, epochSamples))
    this.#guard.state = guard
    this.#tests = this.#tests.filter((test) => test.step <= step)
  }

  /** Whether an epoch has just ended. */
  get #between(): boolean {
    return this.progress.step > 0 && this.progress.epochSamples === 0
  }

  /** Whether every update that was asked for is done. */
  get finished(): boolean {
    return this.reached || this.progress.step >= Math.min(this.totalSteps, this.#input.steps ?? Infinity)
  }

  /** Accuracy of the present parameters on the test set, where they were tested. */
  get testAccuracy(): number | undefined {
    const last = this.#tests.at(-1)
    return last?.step === this.progress.step ? last.accuracy : undefined
  }

  /** Whether the present parameters have the accuracy of `until`. */
  get reached(): boolean {
    return (this.testAccuracy ?? 0) >= (this.#input.until ?? Infinity)
  }

  /** Makes `run` end after the update at hand, or at once if it waits for workers. */
  stop(): void {
    this.#stopped = true
    this.#input.cluster.abandon()
  }

  /** Lets `run` go on after a `stop`. */
  goOn(): void {
    this.#stopped = false
  }

  /** Makes `run` end at once, to be gone on with from an earlier state: gradients since step `to` are in doubt. */
  rewind(to: number, reason: string): void {
    this.#rewind ??= { to, rateFactor: 1, reason }
    this.#input.cluster.abandon()
  }

  /** The training went wrong for good: makes `run` end, by throwing E_DIVERGED or with a `Rewind`. */
  diverged({ reason, message }: Divergence): void {
    const { step, epoch, rateFactor } = this.progress
    const { config, report, cluster } = this.#input
    if (this.#diverged || this.#rewind) return
    report({ event: 'diverged', step, reason, message })
    const [verdict, advice] =
      reason === 'deadStart'
        ? (['deadStart', 'try another seed, initialisation or rate'] as const)
        : (['diverging', 'lower the rate'] as const)
    this.#say(
      this.#input.convergence.decide({ verdict, reason: `The training went wrong, ${message}: ${advice}.` }),
    )
    if (config.onDivergence === 'rollback' && rateFactor > 2 ** -MOST_HALVINGS) {
      const { stepsPerEpoch, progress } = this
      // Where a test found it, the epoch's end is no good state; nor is one that was gone back to already.
      const end = (this.#between ? epoch - 1 : epoch) * stepsPerEpoch
      const { loweredAt = -1 } = progress
      const good = loweredAt >= end ? Math.max(0, loweredAt - stepsPerEpoch) : end
      // Of a start that never learned there is none but the first.
      const to = reason === 'deadStart' ? 0 : good
      this.#rewind = { to, rateFactor: 0.5, reason: message }
    } else {
      this.#diverged = new ConvoyError(
        'E_DIVERGED',
        `the training diverged at step ${step}: ${message}`,
        reason === 'deadStart'
          ? 'Try another --seed, a higher or lower --learning-rate, or --initialisation heNormal.'
          : 'Lower --learning-rate, or give --clip-norm 1, or --on-divergence rollback; the last good checkpoint stays.',
      )
    }
    cluster.abandon()
  }

  /**
   * Trains until finished or stopped, or until it has to go back: then it resolves with where to.
   *
   * @param afterStep Called after each update, with whether it ended an epoch: the place for checkpoints.
   * Throws E_DIVERGED, and E_LEDGER where samples were not used exactly once.
   */
  async run(afterStep: (epochEnded: boolean) => void): Promise<Rewind | undefined> {
    await this.#run(afterStep)
    if (this.#diverged) throw this.#diverged
    const rewind = this.#rewind
    this.#rewind = undefined
    return rewind
  }

  async #run(afterStep: (epochEnded: boolean) => void): Promise<void> {
    const { config, dataset, evaluateEvery } = this.#input
    const { progress } = this
    const due = () => evaluateEvery > 0 && progress.epoch % evaluateEvery === 0
    const wrong = () => this.#rewind !== undefined || this.#diverged !== undefined
    // A session that ended between an epoch's last step and its test left that to this one.
    if (this.#between && this.testAccuracy === undefined && (due() || this.finished)) await this.evaluate()
    while (!this.finished && !this.#stopped && !wrong()) {
      const order = epochOrder(config.seed, progress.epoch, dataset.train.count)
      while (!this.finished && !this.#stopped) {
        const inEpoch = progress.step - progress.epoch * this.stepsPerEpoch
        const [lo, hi] = batchRange(inEpoch, dataset.train.count, this.batchSize)
        const done = await this.#step(order.subarray(lo, hi))
        if (!done || wrong()) return
        const epochEnded = inEpoch + 1 === this.stepsPerEpoch
        if (epochEnded) this.#endEpoch()
        afterStep(epochEnded)
        if (epochEnded) break
      }
      if ((due() || this.finished) && !this.#stopped) await this.evaluate()
    }
  }

  /** One step. Resolves with false where it was abandoned; nothing has changed then. */
  async #step(ids: Uint32Array): Promise<boolean> {
    const { cluster, report } = this.#input
    const { progress, parameters } = this
    const begun = performance.now()
    this.#lowerWhenDue()
    const batch = this.#batch.begin(ids, progress)
    if (!(await cluster.compute(batch, parameters.current))) return false
    const computed = performance.now()

    const { gradient, loss, correct, count } = batch.tree.result()
    for (const { lo, hi } of batch.entries) this.#ledger.apply(batch.ids(lo, hi))
    const rate =
      progress.rateFactor *
      learningRate(this.#schedule, {
        step: progress.step,
        stepsPerEpoch: this.stepsPerEpoch,
        totalSteps: this.totalSteps,
      })
    let norm = 0
    const frozen = this.#frozen
    parameters.advance(progress.step + 1, (next) => {
      // A frame may be new, or from before: what is frozen is the same in all.
      if (frozen) next.values.set(parameters.current.values)
      const send = cluster.broadcast(next)
      norm = this.optimizer.update(gradient, count, rate, (first, end) => {
        send(this.#scatter(this.optimizer.parameters, first, end, next.values))
      }).gradientNorm
    })

    this.#input.used?.(progress.step, ids, batch.entries)
    progress.step++
    progress.epochLoss += loss
    progress.epochCorrect += correct
    progress.epochSamples += count
    // Waiting for workers is no training.
    const seconds = (performance.now() - begun - cluster.waited) / 1000
    progress.seconds += seconds
    this.sessionSeconds += seconds
    this.sessionSamples += count
    const computeSeconds = Math.max(0, ...cluster.engineSeconds.values())
    const updateSeconds = (performance.now() - computed) / 1000
    this.workersWanted.observe({
      workers: cluster.engineSeconds.size,
      leaves: batch.units,
      ...{ seconds, computeSeconds, updateSeconds },
    })
    const { cost1000, cost5000, changed } = this.#input.convergence.add(progress.step, loss, count)
    report({
      event: 'step',
      step: progress.step,
      epoch: progress.epoch,
      loss: loss / count,
      cost1000,
      cost5000,
      accuracy: correct / count,
      learningRate: rate,
      gradientNorm: norm,
      samples: count,
      ...{ seconds, computeSeconds, updateSeconds },
      workers: cluster.size,
    })
    this.#say(changed)
    const divergence: Divergence | undefined = this.optimizer.isFinite()
      ? this.#guard.step(progress.step, loss, count)
      : { reason: 'notFinite', message: 'a parameter is NaN or infinite' }
    if (divergence) this.diverged(divergence)
    return true
  }

  /** Reports a change of the verdict. */
  #say(changed: Judgement | undefined): void {
    if (!changed) return
    const { convergence, report } = this.#input
    const { step, epoch } = this.progress
    const { cost1000, cost5000 } = convergence
    report({ event: 'verdict', step, epoch, ...changed, cost1000, cost5000 })
  }

  #endEpoch(): void {
    const { progress } = this
    const { epochLoss, epochCorrect, epochSamples } = progress
    this.#ledger.close()
    progress.epoch++
    this.trainLoss = epochLoss / epochSamples
    this.#input.report({
      event: 'epoch',
      epoch: progress.epoch,
      step: progress.step,
      trainLoss: this.trainLoss,
      trainAccuracy: epochCorrect / epochSamples,
      samples: epochSamples,
      exactlyOnce: this.#ledger.count,
      seconds: progress.seconds,
    })
    progress.epochLoss = progress.epochCorrect = progress.epochSamples = 0
    this.#ledger.begin(new Uint32Array())
  }

  /** Tests the present parameters on the whole test set. Resolves with undefined where it was abandoned. */
  async evaluate(): Promise<Score | undefined> {
    const { model, dataset, cluster, report, until } = this.#input
    const { epoch, step } = this.progress
    const begun = performance.now()
    const evaluation = new Evaluation(model, dataset, { epoch, step }, (done, of) =>
      report({ event: 'evaluating', done, of }),
    )
    if (!(await cluster.compute(evaluation, this.parameters.current))) return undefined
    this.score = evaluation.score()
    const { accuracy } = this.score
    this.#tests = [...this.#tests.filter((test) => test.step < step), { step, epoch, accuracy }]
    // The last of a run that is ended by --steps may come within its first epoch.
    const whole = this.#tests.filter((test) => test.epoch > 0)
    report({
      event: 'test',
      epoch,
      step,
      testLoss: this.score.loss,
      testAccuracy: accuracy,
      seconds: (performance.now() - begun) / 1000,
      ...(until === undefined ? {} : { expectedEpoch: epochOfAccuracy(whole, until) ?? null }),
    })
    return this.score
  }
}

/** SHA-256 in hex over the parameters as little-endian float32. */
export function parametersSha256(parameters: Float32Array): string {
  return createHash('sha256')
    .update(new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength))
    .digest('hex')
}
