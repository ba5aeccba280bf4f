import type { EngineChoice } from '@convoy/engine'
import type { ModelSpec } from '@convoy/model'
import { EngineProcess } from './engine-process.ts'

/** Seconds that each size is measured for. */
const SECONDS = 1
/** The smallest leaf that is as good as this share of the fastest one is taken: smaller ones are shared out more evenly. */
const GOOD = 0.95

/**
 * Leaf sizes worth measuring: powers of two, up to a worker's share of a batch, so that each has a leaf.
 *
 * @param batchSize Samples of a batch.
 */
export function leafSizes(batchSize: number, workers: number, gpu: boolean): number[] {
  const most = Math.max(1, Math.floor(batchSize / Math.max(1, workers)))
  const sizes = gpu ? [64, 128, 256, 512, 1024, 2048] : [8, 16, 32, 64]
  const fitting = sizes.filter((size) => size <= most)
  return fitting.length > 0 ? fitting : [most]
}

/** The smallest leaf that is nearly as fast as the fastest. */
export function smallestGood(speeds: ReadonlyMap<number, number>): number {
  const fastest = Math.max(...speeds.values())
  return Math.min(...[...speeds].flatMap(([leaf, speed]) => (speed >= GOOD * fastest ? [leaf] : [])))
}

/**
 * Measures a model's training at each leaf size on this machine's engine. Throws where the smallest cannot be measured.
 *
 * @param tooLarge Is told of a size that could not be, and why; larger ones are not tried then.
 */
export async function measureLeaves(
  engine: EngineChoice,
  model: ModelSpec,
  sizes: readonly number[],
  progress: (text: string) => void,
  tooLarge: (text: string) => void,
): Promise<Map<number, number>> {
  const speeds = new Map<number, number>()
  const bench = new EngineProcess()
  try {
    for (const leaf of sizes) {
      progress(`measuring leaves of ${leaf} samples`)
      const { imagesPerSecond } = await bench.measure({ engine, model, leaf, seconds: SECONDS })
      speeds.set(leaf, imagesPerSecond)
    }
  } catch (error) {
    // A larger one does not fit a GPU's memory.
    if (speeds.size === 0) throw error
    tooLarge(`leaves of more than ${[...speeds.keys()].at(-1)} samples: ${(error as Error).message}`)
  } finally {
    bench.close()
  }
  return speeds
}
