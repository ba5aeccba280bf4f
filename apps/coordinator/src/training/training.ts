import { Arena } from '@convoy/arena'
import type { Convergence } from '@convoy/convergence'
import { batchRange, epochOrder } from '@convoy/data'
import { gradientCut, trainedLayout } from '@convoy/model'
import type { Schedule } from '@convoy/optim'
import type { Totals } from '@convoy/reduction'
import type { RunConfig, TrainingConfig } from '../config.ts'
import { Batch } from './batch.ts'
import { DivergenceGuard, type Divergence } from './divergence.ts'
import { GoingBack, type EarlierStates } from './going-back.ts'
import { Ledger, type Entry } from './ledger.ts'
import { Reporter } from './reporter.ts'
import { firstBatchAt, lengthOf, ratesAt, scheduleOf, type Length } from './schedule.ts'
import type { Sizes } from './sizes.ts'
import { betweenEpochs, progressOf, type Progress, type State } from './state.ts'
import { Testing, type TestingOptions } from './testing.ts'
import { Weights } from './weights.ts'

export interface TrainingInput extends TestingOptions {
  readonly config: TrainingConfig & Pick<RunConfig, 'evaluateEvery' | 'until' | 'steps' | 'worth' | 'verify'>
  readonly sizes: Sizes
  /** Parameters and velocity to start from. */
  readonly start: State
  /** Reads the cost curve; holds that of the run so far. */
  readonly convergence: Convergence
  /** Told with each update which samples it used, and who computed them; `step` counts those before it. */
  readonly used?: (update: {
    step: number
    epoch: number
    nodes: readonly Entry[]
    samples: Uint32Array
  }) => void
}

/**
 * Synchronous data-parallel training: each step is the gradient of one batch from the cluster, then one update. With rounds, a step is what a
 * round moved its replicas by, on the mean, and the update is by that.
 */
export class Training {
  progress: Progress
  readonly length: Length
  readonly sizes: Sizes
  readonly weights: Weights
  readonly testing: Testing
  readonly reporter: Reporter
  readonly #input: TrainingInput
  readonly #batch: Batch
  readonly #schedule: Schedule
  readonly #ledger: Ledger
  readonly #guard: DivergenceGuard
  readonly #goingBack: GoingBack
  #stopped = false

  constructor(input: TrainingInput) {
    const { config, dataset, model, cluster, report, start } = input
    this.#input = input
    this.length = lengthOf(config, dataset.train.count)
    this.progress = progressOf(start)
    const arena = new Arena(trainedLayout(model).size)
    this.weights = new Weights(model, arena, config, start)
    this.testing = new Testing(input)
    this.reporter = new Reporter(cluster, input.convergence, report, config.worth)
    this.sizes = input.sizes
    this.#batch = new Batch(dataset, arena, { ...config, cut: gradientCut(model) })
    this.#schedule = scheduleOf(config)
    this.#ledger = new Ledger(dataset.train.count)
    // Guessing costs ln(classes) with a softmax, and classes·ln(2) with a sigmoid for each class.
    const { classes, head } = model
    const guessing = head === 'softmax' ? Math.log(classes) : classes * Math.LN2
    this.#guard = new DivergenceGuard(guessing, config.deadAfter)
    this.#goingBack = new GoingBack(config.onDivergence, this.length.stepsPerEpoch, report)
    cluster.onDishonest = (since) => this.#doubt(since)
    cluster.onNotFinite = () =>
      this.#diverged({ reason: 'notFinite', message: 'the gradient holds NaN or Inf, whoever computes it' })
    this.#takeUp()
  }

  /** Goes on from another state of the same run. */
  restore(state: State): void {
    this.progress = progressOf(state)
    this.weights.restore(state)
    this.#takeUp()
  }

  /** Has ledger, guard, tests and the reading of the curve continue from `progress`. */
  #takeUp(): void {
    const { config, dataset } = this.#input
    const { step, epoch, epochSamples, guard } = this.progress
    this.reporter.takeBack(step)
    this.#ledger.begin(epochOrder(config.seed, epoch, dataset.train.count).subarray(0, epochSamples))
    this.#guard.state = guard
    this.testing.takeBack(step)
  }

  /** Whether every update that was asked for is done. */
  get finished(): boolean {
    return this.reached || this.#left <= 0
  }

  /** Updates that are still to be done. */
  get #left(): number {
    const { steps = Infinity } = this.#input.config
    return Math.min(this.length.totalSteps, steps) - this.progress.step
  }

  /** Accuracy of the present parameters on the test set, where they were tested. */
  get testAccuracy(): number | undefined {
    return this.testing.accuracyAt(this.progress.step)
  }

  /** Whether the present parameters have the accuracy of `until`. */
  get reached(): boolean {
    return this.testing.reachedAt(this.progress.step)
  }

  /** How many workers the training is worth: undefined until it was measured, 0 when it is over. */
  get workersWanted(): number | undefined {
    return this.finished ? 0 : this.reporter.workersWanted.wanted
  }

  /** Makes `run` end after the update at hand, or at once if it waits for workers. */
  stop(): void {
    this.#stopped = true
    this.#input.cluster.abandon()
  }

  /** Gradients since step `to` are in doubt: the training goes back. */
  #doubt(to: number): void {
    this.#goingBack.doubt(to, 'a worker that took part since then gave wrong gradients')
    this.#input.cluster.abandon()
  }

  /** The training went wrong for good: it goes back, or ends by E_DIVERGED. */
  #diverged(divergence: Divergence): void {
    if (this.#goingBack.due) return
    this.reporter.diverged(divergence, this.progress)
    this.#goingBack.diverged(divergence, this.progress)
    this.#input.cluster.abandon()
  }

  /**
   * Trains until finished or stopped, and goes back where it has to; called again, it goes on.
   *
   * @param states To go back to.
   * @param afterStep Called after each update, with whether it ended an epoch: the place for checkpoints.
   * Throws E_DIVERGED, and E_LEDGER where samples were not used exactly once.
   */
  async run(states: EarlierStates, afterStep: (epochEnded: boolean) => void): Promise<void> {
    do await this.#forward(afterStep)
    while (await this.#goingBack.goBack(this, states))
    if (this.finished) this.reporter.end(this.progress)
    this.#stopped = false
  }

  /** Trains until finished or stopped, or until it has to go back. */
  async #forward(afterStep: (epochEnded: boolean) => void): Promise<void> {
    const { config, dataset } = this.#input
    const { progress, testing } = this
    const { batchSize, stepsPerEpoch } = this.length
    const due = () => testing.due(progress.epoch) || this.finished
    // A session that ended between an epoch's last step and its test left that to this one.
    if (betweenEpochs(progress) && this.testAccuracy === undefined && due()) await this.#test()
    while (!this.finished && !this.#stopped && !this.#goingBack.due) {
      const order = epochOrder(config.seed, progress.epoch, dataset.train.count)
      while (!this.finished && !this.#stopped) {
        const inEpoch = progress.step - progress.epoch * stepsPerEpoch
        const [lo, hi] = batchRange(inEpoch, dataset.train.count, batchSize)
        const done = await this.#step(order.subarray(lo, hi))
        if (!done || this.#goingBack.due) return
        const epochEnded = inEpoch + 1 === stepsPerEpoch
        if (epochEnded) this.#endEpoch()
        afterStep(epochEnded)
        if (epochEnded) break
      }
      if (due() && !this.#stopped) await this.#test()
    }
  }

  /** One step. Resolves with false where it was abandoned; nothing has changed then. */
  async #step(ids: Uint32Array): Promise<boolean> {
    const { cluster, used } = this.#input
    const { progress, weights, length } = this
    const begun = performance.now()
    this.#goingBack.lowerWhenDue(progress)
    const size = this.sizes.at(progress.step)
    const rates = ratesAt(this.#schedule, length, progress).map((rate) => progress.rateFactor * rate)
    const round = length.rounds && { step: firstBatchAt(length, progress), rates }
    const rate = length.rounds?.outerRate ?? rates[0]
    const next = progress.step + 1
    const batch = this.#batch.begin(ids, progress, size, round, (gradient) => {
      const { cut } = batch
      weights.begin(gradient, { cut, count: ids.length, rate, step: next }, (frame, from, present) =>
        cluster.broadcastAhead(frame, from, present),
      )
    })
    if (!(await cluster.compute(batch, weights.frame))) {
      weights.takeBack()
      return false
    }
    const computed = performance.now()

    const sum = batch.tree.result()
    for (const { lo, hi } of batch.entries) this.#ledger.apply(batch.ids(lo, hi))
    const { step, epoch } = progress
    const gradientNorm = weights.update(sum, rate, next, (frame) => cluster.broadcast(frame))

    used?.({ step, epoch, nodes: batch.entries, samples: ids })
    const now = performance.now()
    // Waiting for workers is no training.
    const seconds = (now - begun - cluster.waited) / 1000
    advance(progress, sum, seconds)
    this.reporter.step(progress, sum, {
      ...{ left: this.#left, round: round !== undefined },
      ...{ leaves: batch.units, learningRate: rates.at(-1)!, gradientNorm, seconds, size: size.size },
      work: this.sizes.work(progress.step),
      updateSeconds: (now - computed) / 1000,
    })
    const divergence: Divergence | undefined = weights.isFinite()
      ? this.#guard.step(progress.step * (length.rounds?.steps ?? 1), sum.loss, sum.count)
      : { reason: 'notFinite', message: 'a parameter is NaN or infinite' }
    if (divergence) this.#diverged(divergence)
    return true
  }

  #endEpoch(): void {
    const { progress } = this
    this.#ledger.close()
    progress.epoch++
    this.reporter.epoch(progress, this.#ledger.count)
    progress.epochLoss = progress.epochCorrect = progress.epochSamples = 0
    this.#ledger.begin(new Uint32Array())
  }

  async #test(): Promise<void> {
    await this.testing.test(this.weights.frame, this.progress)
  }
}

/** Counts one update in. */
function advance(progress: Progress, { loss, correct, count }: Totals, seconds: number): void {
  progress.step++
  progress.epochLoss += loss
  progress.epochCorrect += correct
  progress.epochSamples += count
  progress.seconds += seconds
}
