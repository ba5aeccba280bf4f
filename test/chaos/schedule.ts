import { RandomStream } from '@convoy/random'

/**
 * What can go wrong; `start` is a worker more, `killInWrite` kills the coordinator in the middle of a checkpoint, and the
 * rest speak for themselves.
 */
export const kinds = [
  'kill',
  'pause',
  'terminate',
  'start',
  'leave',
  'drop',
  'delay',
  'truncate',
  'corrupt',
  'halfOpen',
  'killCoordinator',
  'killInWrite',
  'fullDisk',
  'slowDisk',
] as const

export interface Fault {
  readonly kind: (typeof kinds)[number]
  /** It happens once so many updates were done. */
  readonly step: number
  /** Which of the relays and workers there are, modulo their number; of workers alone for `leave`. */
  readonly worker: number
  /** How long, in milliseconds, for what has an end. */
  readonly duration: number
}

/** The faults of a seed, by their steps. Every kind of `only` comes about equally often. */
export function schedule(
  seed: number,
  steps: number,
  count: number,
  only: readonly Fault['kind'][] = kinds,
): Fault[] {
  const random = new RandomStream(seed, 0)
  const below = (n: number) => random.uint32() % n
  // Each round is all kinds in an order of its own, so that a few faults are of many kinds.
  const order: Fault['kind'][] = []
  while (order.length < count) {
    const round = [...only]
    for (let i = round.length - 1; i > 0; i--) {
      const j = below(i + 1)
      ;[round[i], round[j]] = [round[j], round[i]]
    }
    order.push(...round)
  }
  return order
    .slice(0, count)
    .map((kind) => ({
      kind,
      step: 1 + below(Math.max(1, steps - 2)),
      worker: below(5),
      duration: 300 + below(2_200),
    }))
    .sort((a, b) => a.step - b.step)
}

/**
 * Options of the run of a seed: some of what makes it learn faster, drawn by chance, since each has a part in what a state is or in
 * what a leaf's gradient is a function of.
 *
 * @param batchSize Samples of an update; of a round all together, so that a run has as many.
 */
export function optionsOf(seed: number, batchSize: number): string[] {
  const random = new RandomStream(seed, 1)
  const one = (...choices: readonly string[][]) => choices[random.uint32() % choices.length]
  return [
    ...one(
      [],
      ['--parametrisation', 'standardised', '--end-rate', '0.1'],
      ['--optimizer', 'muon', '--head-rate', '0.4', '--whitened-start', '--identity-start'],
    ),
    ...one([], ['--sizes', '16:0.3,24:0.3,32'], ['--sizes', '24:0.4,16:0.2,32', '--resize', 'crop']),
    ...one([], ['--label-smoothing', '0.1']),
    ...one(['--flip'], ['--alternating-flip']),
    ...one([], ['--cutout', '10']),
    ...one([], ['--bias-rate', '0.3']),
    ...one([], ['--replicas', '4', '--local-steps', '2', '--batch-size', String(batchSize / 8)]),
    ...one([], ['--wire', 'bf16'], ['--wire', 'int8']),
    ...one([], ['--down', 'bf16']),
  ]
}

/** How many relays the run of a seed has: none in half of all runs, else one or two. */
export function relaysOf(seed: number): number {
  return [0, 0, 1, 2][new RandomStream(seed, 2).uint32() % 4]
}
