import { Purpose, RandomStream } from '@convoy/random'

/**
 * The order of an epoch: a permutation of 0 … count - 1 drawn from (seed, epoch) alone, so that each sample is used
 * exactly once an epoch whoever computes (Fisher and Yates' shuffle, in Durstenfeld's form).
 */
export function epochOrder(seed: number, epoch: number, count: number): Uint32Array {
  const order = new Uint32Array(count)
  for (let i = 0; i < count; i++) order[i] = i
  shuffle(order, new RandomStream(seed, Purpose.epochOrder, epoch))
  return order
}

/** Shuffles in place. */
export function shuffle(values: Uint32Array, random: RandomStream): void {
  for (let i = values.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    const value = values[i]
    values[i] = values[j]!
    values[j] = value
  }
}

/** How many updates an epoch has; the last batch may be smaller. */
export function stepCount(count: number, batchSize: number): number {
  return Math.ceil(count / batchSize)
}

/** Which part [lo, hi) of an epoch's order batch number `step` of that epoch is. */
export function batchRange(step: number, count: number, batchSize: number): readonly [number, number] {
  return [step * batchSize, Math.min(count, (step + 1) * batchSize)]
}

/** How many leaves a batch has; the last may be smaller. */
export function leafCount(batchCount: number, microBatch: number): number {
  return Math.ceil(batchCount / microBatch)
}

/** Which part [lo, hi) of a batch leaf number `leaf` is. */
export function leafRange(leaf: number, batchCount: number, microBatch: number): readonly [number, number] {
  return [leaf * microBatch, Math.min(batchCount, (leaf + 1) * microBatch)]
}
