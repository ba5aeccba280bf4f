import { Purpose, RandomStream } from '@convoy/random'
import { z } from 'zod'

/** How training images are varied; travels over the wire. */
export const augmentationSpec = z.strictObject({
  /** Mirror every other image, left to right. */
  flip: z.boolean(),
  /** Shift by up to so many pixels in each direction; what comes in from outside is reflected. */
  shift: z.int().min(0).max(1024),
})
export type AugmentationSpec = z.infer<typeof augmentationSpec>

/** What an image's variation is a function of. */
export interface SampleKey {
  readonly seed: number
  readonly epoch: number
  readonly sample: number
}

/** One image's variation. */
export interface Variation {
  flip: boolean
  /** Rows and columns that the image moves down and right. */
  down: number
  right: number
}

/** Draws the variation of one sample in one epoch into `into`: a pure function of its key. */
export function vary(spec: AugmentationSpec, key: SampleKey, random: RandomStream, into: Variation): void {
  random.rekey(key.seed, Purpose.augmentation, key.epoch, key.sample)
  into.flip = spec.flip && (random.uint32() & 1) === 1
  into.down = spec.shift === 0 ? 0 : random.below(2 * spec.shift + 1) - spec.shift
  into.right = spec.shift === 0 ? 0 : random.below(2 * spec.shift + 1) - spec.shift
}

/** The index that `i` means in 0 … size - 1, reflected at the borders without repeating them: -1 is 1. */
export function reflect(i: number, size: number): number {
  if (size === 1) return 0
  const period = 2 * (size - 1)
  const within = ((i % period) + period) % period
  return within < size ? within : period - within
}
