import { stepCount } from '@convoy/data'
import type { Schedule } from '@convoy/optim'
import type { TrainingConfig } from '../config.ts'

/** A run in steps. */
export interface Length {
  /** Samples of an epoch. */
  readonly images: number
  /** Samples of a batch; the last one of an epoch may have fewer. */
  readonly batchSize: number
  readonly stepsPerEpoch: number
  readonly totalSteps: number
}

/** How many steps a run on so many images has. */
export function lengthOf(config: Pick<TrainingConfig, 'batchSize' | 'epochs'>, images: number): Length {
  const batchSize = config.batchSize === 'full' ? images : Math.min(config.batchSize, images)
  const stepsPerEpoch = stepCount(images, batchSize)
  return { images, batchSize, stepsPerEpoch, totalSteps: stepsPerEpoch * config.epochs }
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
