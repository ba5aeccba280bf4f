import { epochOfAccuracy } from '@convoy/convergence'
import type { Dataset } from '@convoy/data'
import type { ModelSpec } from '@convoy/model'
import type { Cluster, ParameterFrame } from '../cluster/index.ts'
import { shareOf, type RunConfig } from '../config.ts'
import type { Report } from '../events.ts'
import { Evaluation, type Score } from './evaluation.ts'
import type { Sizes } from './sizes.ts'

/** A test of the run. */
export interface Test {
  readonly step: number
  readonly epoch: number
  readonly accuracy: number
}

export interface TestingOptions {
  readonly config: Pick<RunConfig, 'evaluateEvery' | 'until'>
  readonly model: ModelSpec
  readonly dataset: Dataset
  readonly sizes: Pick<Sizes, 'at'>
  readonly cluster: Cluster
  readonly report: Report
  /** The tests so far. */
  readonly tests: readonly Test[]
}

/** Tests the parameters every so many epochs, and knows the run's tests up to where it stands. */
export class Testing {
  /** The last test of this session. */
  score: Score | undefined
  /** The accuracy at which the training ends, a share of 1, where one was given. */
  readonly until: number | undefined
  /** Test after so many epochs; 0 is only at the end. */
  readonly #every: number
  #tests: readonly Test[]
  readonly #options: TestingOptions

  constructor(options: TestingOptions) {
    this.#options = options
    this.#tests = options.tests
    const { until, evaluateEvery } = options.config
    this.until = until === undefined ? undefined : shareOf(until)
    // An accuracy is reached at a test.
    this.#every = until === undefined ? evaluateEvery : Math.max(1, evaluateEvery)
  }

  /** Forgets what came after a step, as a run does that goes on from an earlier state. */
  takeBack(step: number): void {
    this.#tests = this.#tests.filter((test) => test.step <= step)
  }

  /** Whether a test is due after so many epochs. */
  due(epoch: number): boolean {
    return this.#every > 0 && epoch % this.#every === 0
  }

  /** The accuracy after so many updates, where it was tested. */
  accuracyAt(step: number): number | undefined {
    const last = this.#tests.at(-1)
    return last?.step === step ? last.accuracy : undefined
  }

  /** Whether the test after so many updates has the accuracy of `until`. */
  reachedAt(step: number): boolean {
    return (this.accuracyAt(step) ?? 0) >= (this.until ?? Infinity)
  }

  /** Tests parameters on the whole test set. Resolves with undefined where it was abandoned. */
  async test(
    frame: ParameterFrame,
    { epoch, step }: { epoch: number; step: number },
  ): Promise<Score | undefined> {
    const { model, dataset, cluster, report } = this.#options
    const begun = performance.now()
    const evaluation = new Evaluation(model, dataset, { epoch, step }, (done, of) =>
      report({ event: 'evaluating', done, of }),
    )
    if (!(await cluster.compute(evaluation, frame))) return undefined
    this.score = evaluation.score()
    const { accuracy, loss } = this.score
    this.#tests = [...this.#tests.filter((test) => test.step < step), { step, epoch, accuracy }]
    report({
      event: 'test',
      epoch,
      step,
      testLoss: loss,
      testAccuracy: accuracy,
      seconds: (performance.now() - begun) / 1000,
      ...(this.until === undefined ? {} : { expectedEpoch: this.#expectedEpoch(this.until) ?? null }),
    })
    return this.score
  }

  /** The epoch at which an accuracy is expected; undefined while the tests do not say. */
  #expectedEpoch(accuracy: number): number | undefined {
    const { sizes } = this.#options
    const comparable = this.#tests.filter(
      ({ epoch, step }) =>
        // The last of a run that is ended by --steps may come within its first epoch.
        epoch > 0 &&
        // What learned from smaller images last does worse at full size, and leaps where the size changes.
        sizes.at(step - 1).size === undefined,
    )
    return epochOfAccuracy(comparable, accuracy)
  }
}
