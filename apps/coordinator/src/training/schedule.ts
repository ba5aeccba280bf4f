import { stepCount } from '@convoy/data'
import { learningRate, type Schedule } from '@convoy/optim'
import type { TrainingConfig } from '../config.ts'
import { roundsOf, type Rounds, type RoundsConfig } from './rounds.ts'

/** A run in steps. */
export interface Length {
  /** Samples of an epoch. */
  readonly images: number
  /** Samples of a step: of a batch, or of all batches of a round. The last one of an epoch may have fewer. */
  readonly batchSize: number
  readonly stepsPerEpoch: number
  readonly totalSteps: number
  /** What each step is, where it is a round. */
  readonly rounds: Rounds | undefined
}

/** How many steps a run on so many images has. */
export function lengthOf(config: RoundsConfig & Pick<TrainingConfig, 'epochs'>, images: number): Length {
  const rounds = roundsOf(config)
  const samples = rounds ? rounds.replicas * rounds.steps * rounds.batchSize : config.batchSize
  const batchSize = samples === 'full' ? images : Math.min(samples, images)
  const stepsPerEpoch = stepCount(images, batchSize)
  return { images, batchSize, stepsPerEpoch, totalSteps: stepsPerEpoch * config.epochs, rounds }
}

/** What workers need to know of a round. */
export interface Round {
  /** The number of the round's first batch among those of the run: that of the step that would have these samples without rounds. */
  readonly step: number
  /** η of each step of a replica. */
  readonly rates: readonly number[]
}

/** Where a run stands: steps and epochs done. */
interface At {
  readonly step: number
  readonly epoch: number
}

/** η of the step at hand; of a round, that of each step that its first replica takes, which is the longest. */
export function ratesAt(schedule: Schedule, length: Length, { step, epoch }: At): number[] {
  const { rounds, stepsPerEpoch, totalSteps, images, batchSize } = length
  if (!rounds) return [learningRate(schedule, { step, stepsPerEpoch, totalSteps })]
  // Time is counted in the steps of the first replica, so that an epoch is an epoch, and one replica alone has a plain run's rates.
  const stepsOf = (samples: number) =>
    Math.min(rounds.steps, stepCount(Math.min(samples, batchSize), rounds.batchSize))
  const last = stepsOf(images - (stepsPerEpoch - 1) * batchSize)
  const perEpoch = (stepsPerEpoch - 1) * rounds.steps + last
  const inEpoch = step - epoch * stepsPerEpoch
  const first = epoch * perEpoch + inEpoch * rounds.steps
  const epochs = totalSteps / stepsPerEpoch
  return Array.from({ length: stepsOf(images - inEpoch * batchSize) }, (_, i) =>
    learningRate(schedule, { step: first + i, stepsPerEpoch: perEpoch, totalSteps: perEpoch * epochs }),
  )
}

/** The number of the first batch of the step at hand among those of the run; of a step that is no round, its own. */
export function firstBatchAt({ rounds, stepsPerEpoch, images }: Length, { step, epoch }: At): number {
  if (!rounds) return step
  const inEpoch = step - epoch * stepsPerEpoch
  return epoch * stepCount(images, rounds.batchSize) + inEpoch * rounds.replicas * rounds.steps
}

/** The schedule of the learning rate that a config describes. */
export function scheduleOf(config: TrainingConfig): Schedule {
  const { learningRate: rate, decay, c1, c2, milestones, warmup, endRate = 0 } = config
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
      return { kind: 'oneCycle', rate, warmup, endRate }
  }
}
