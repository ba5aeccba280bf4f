import type { Dataset, Split } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import type { TrainingConfig } from '../config.ts'

/** A replica's images travel in one message; workers take no larger ones than twice this, in bytes. */
const LARGEST_REPLICA = 2 ** 28

/**
 * Rounds instead of single steps: each of `replicas` takes `steps` steps by itself, on batches of its own; then the parameters move by
 * their mean difference. To the rest of the coordinator a round is a step whose leaves are the replicas.
 */
export interface Rounds {
  readonly steps: number
  readonly replicas: number
  /** Samples of a step that a replica takes. */
  readonly batchSize: number
  readonly outerRate: number
  readonly outerMomentum: number
}

/** The rounds that a config describes; undefined where it has none. It is taken to be possible. */
export function roundsOf(config: RoundsConfig): Rounds | undefined {
  const { replicas, localSteps: steps = 1, batchSize } = config
  const { outerRate = 0.7, outerMomentum = 0.9 } = config
  if (replicas === undefined || batchSize === 'full') return undefined
  return { steps, replicas, batchSize, outerRate, outerMomentum }
}

export type RoundsConfig = Pick<
  TrainingConfig,
  'batchSize' | 'localSteps' | 'replicas' | 'outerRate' | 'outerMomentum'
>

/** Refuses rounds that are not possible, and options of rounds where there are none. Throws E_USAGE. */
export function checkRounds(
  config: RoundsConfig & Pick<TrainingConfig, 'preprocessing'>,
  { train, shape: [height, width, channels] }: Pick<Dataset, 'shape'> & { train: Pick<Split, 'count'> },
): void {
  const { replicas, localSteps = 1, outerRate, outerMomentum, batchSize, preprocessing } = config
  const refuse = (what: string, remedy: string) => {
    throw new ConvoyError('E_USAGE', what, remedy)
  }
  if (replicas === undefined) {
    const without = 'without --replicas there are no rounds'
    const remedy = 'Give --replicas N as well, or leave it out.'
    if (localSteps > 1) refuse(`--local-steps ${localSteps} is not possible: ${without}`, remedy)
    if (outerRate !== undefined) refuse(`--outer-rate ${outerRate} is not possible: ${without}`, remedy)
    if (outerMomentum !== undefined)
      refuse(`--outer-momentum ${outerMomentum} is not possible: ${without}`, remedy)
    return
  }
  if (batchSize === 'full')
    refuse(`--replicas ${replicas} does not go with --batch-size full`, 'Give a --batch-size in samples.')
  const each = localSteps * Number(batchSize)
  const samples = replicas * each
  if (samples > train.count) {
    refuse(
      `a round is ${replicas} replicas × ${localSteps} steps × ${batchSize} samples = ${samples}, more than the ${train.count} of an epoch`,
      'Give fewer --replicas or --local-steps, or a smaller --batch-size.',
    )
  }
  const bytes = each * height * width * channels * (preprocessing === 'zca' ? 4 : 1)
  if (bytes > LARGEST_REPLICA) {
    refuse(
      `the images of a replica's round, ${localSteps} steps × ${batchSize}, are ${Math.ceil(bytes / 1e6)} MB, more than the ${Math.floor(LARGEST_REPLICA / 1e6)} MB of a message`,
      'Give fewer --local-steps, or a smaller --batch-size or --image-size.',
    )
  }
}
