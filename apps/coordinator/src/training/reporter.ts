import type { Convergence, Judgement } from '@convoy/convergence'
import type { Totals } from '@convoy/reduction'
import { WorkersWanted, type Cluster } from '../cluster/index.ts'
import type { Report } from '../events.ts'
import type { Divergence } from './divergence.ts'
import type { Progress } from './state.ts'
import { WireWatch } from './wire-watch.ts'

/** The most workers that are ever wanted. */
const MOST_WORKERS = 64

/** What is told of a step beside its totals. */
export interface StepFigures {
  readonly leaves: number
  /** Steps that the run still has. */
  readonly left: number
  /** Whether it is a round. */
  readonly round: boolean
  /** Height and width that the images were made smaller to, where they were. */
  readonly size: number | undefined
  /** What the run cost so far, in epochs of full-size images. */
  readonly work: number
  readonly learningRate: number
  readonly gradientNorm: number
  /** Seconds of the step in which there were workers, and of them those of its update. */
  readonly seconds: number
  readonly updateSeconds: number
}

/** Tells what the training came to, step by step, and what the cost curve says. */
export class Reporter {
  /** The mean loss of the epoch that ended last. */
  trainLoss = NaN
  /** Samples and seconds of training in this session, for images/s. */
  samples = 0
  seconds = 0
  /** How many workers the run is worth, from its steps so far on images of one size. */
  workersWanted: WorkersWanted
  #size: number | undefined
  readonly #wire = new WireWatch()
  readonly #worth: number
  readonly #cluster: Cluster
  readonly #convergence: Convergence
  readonly #report: Report

  /**
   * @param convergence Reads the cost curve; holds that of the run so far.
   * @param worth The share of a step that one more worker must save to be wanted.
   */
  constructor(cluster: Cluster, convergence: Convergence, report: Report, worth: number) {
    this.#cluster = cluster
    this.#convergence = convergence
    this.#report = report
    this.#worth = worth
    this.workersWanted = new WorkersWanted(worth, MOST_WORKERS)
  }

  /** Forgets the curve after a step, as a run does that goes on from an earlier state. */
  takeBack(step: number): void {
    this.#convergence.takeBack(step)
  }

  /** @param progress After the step. */
  step(progress: Progress, { loss, correct, count }: Totals, figures: StepFigures): void {
    const { step, epoch } = progress
    const { engineSeconds } = this.#cluster
    const { leaves, left, round, learningRate, gradientNorm, seconds, updateSeconds, size, work } = figures
    const computeSeconds = Math.max(0, ...engineSeconds.values())
    const times = { seconds, computeSeconds, updateSeconds }
    this.seconds += seconds
    this.samples += count
    if (size !== this.#size) this.workersWanted = new WorkersWanted(this.#worth, MOST_WORKERS)
    this.#size = size
    this.workersWanted.observe({ workers: engineSeconds.size, leaves, ...times })
    const { cost1000, cost5000, changed } = this.#convergence.add(step, loss, count)
    this.#report({
      event: 'step',
      step,
      epoch,
      loss: loss / count,
      cost1000,
      cost5000,
      accuracy: correct / count,
      learningRate,
      gradientNorm,
      samples: count,
      ...(size === undefined ? {} : { size }),
      work,
      ...times,
      workers: this.#cluster.size,
    })
    this.#verdict(changed, progress)
    const wireBound = round ? undefined : this.#wire.observe({ workers: engineSeconds.size, ...times }, left)
    if (wireBound) this.#report({ event: 'wireBound', step, ...wireBound })
  }

  /**
   * @param progress At the epoch's end, with its sums.
   * @param exactlyOnce Samples of it that were applied exactly once.
   */
  epoch(
    { epoch, step, epochLoss, epochCorrect, epochSamples, seconds }: Progress,
    exactlyOnce: number,
  ): void {
    this.trainLoss = epochLoss / epochSamples
    this.#report({
      event: 'epoch',
      epoch,
      step,
      trainLoss: this.trainLoss,
      trainAccuracy: epochCorrect / epochSamples,
      samples: epochSamples,
      exactlyOnce,
      seconds,
    })
  }

  /** The run is over. */
  end(progress: Progress): void {
    this.#verdict(this.#convergence.end(), progress)
  }

  diverged({ reason, message }: Divergence, progress: Progress): void {
    this.#report({ event: 'diverged', step: progress.step, reason, message })
    const [verdict, advice] =
      reason === 'deadStart'
        ? (['deadStart', 'try another seed, initialisation or rate'] as const)
        : (['diverging', 'lower the rate'] as const)
    const judgement = { verdict, reason: `The training went wrong, ${message}: ${advice}.` }
    this.#verdict(this.#convergence.decide(judgement), progress)
  }

  /** Tells a change of the verdict. */
  #verdict(changed: Judgement | undefined, { step, epoch }: Progress): void {
    if (!changed) return
    const { cost1000, cost5000 } = this.#convergence
    this.#report({ event: 'verdict', step, epoch, ...changed, cost1000, cost5000 })
  }
}
