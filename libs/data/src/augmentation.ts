import { Purpose, RandomStream } from '@convoy/random'
import { z } from 'zod'

/** How training images are varied; travels over the wire. */
export const augmentationSpec = z.strictObject({
  /**
   * Mirror images left to right. `true`: each by chance in each epoch. `alternating`: each in every other epoch, its first
   * time by chance, so that two epochs in a row show both sides (Jordan, "94% on CIFAR-10 in 3.29 Seconds", 2024).
   */
  flip: z.union([z.boolean(), z.literal('alternating')]),
  /** Shift by up to so many pixels in each direction; what comes in from outside is reflected. */
  shift: z.int().min(0).max(1024),
  /**
   * Side of a square that is set to 0, the mean after normalising, in pixels; its centre is anywhere in the image, and what
   * lies outside is cut off (DeVries and Taylor, "Improved Regularization … with Cutout", 2017). None where left out.
   */
  cutout: z.int().min(0).max(1024).optional(),
  /** What a step of smaller images trains on: whole images, shrunk (where left out), or a window of each. */
  resize: z.enum(['shrink', 'crop']).optional(),
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
  /** Side of the square that is cut out, 0 for none, and where it begins: outside the image, perhaps. */
  cutout: number
  top: number
  left: number
}

/** An image as it is. */
export function unvaried(): Variation {
  return { flip: false, down: 0, right: 0, cutout: 0, top: 0, left: 0 }
}

/** Draws the variation of one sample in one epoch into `into`: a pure function of its key, the spec and the image's shape. */
export function vary(
  spec: AugmentationSpec,
  [height, width]: readonly [height: number, width: number, channels: number],
  key: SampleKey,
  random: RandomStream,
  into: Variation,
): void {
  const { flip, shift, cutout = 0 } = spec
  if (flip === 'alternating') {
    random.rekey(key.seed, Purpose.flip, key.sample)
    into.flip = ((random.uint32() ^ key.epoch) & 1) === 1
  }
  random.rekey(key.seed, Purpose.augmentation, key.epoch, key.sample)
  if (flip !== 'alternating') into.flip = flip && (random.uint32() & 1) === 1
  into.down = shift === 0 ? 0 : random.below(2 * shift + 1) - shift
  into.right = shift === 0 ? 0 : random.below(2 * shift + 1) - shift
  into.cutout = cutout
  into.top = cutout === 0 ? 0 : random.below(height) - (cutout >> 1)
  into.left = cutout === 0 ? 0 : random.below(width) - (cutout >> 1)
}

/** The augmentation of images of `size` pixels a side instead of `full`: what it counts in pixels shrinks with them. */
export function scaleAugmentation(spec: AugmentationSpec, size: number, full: number): AugmentationSpec {
  if (size === full) return spec
  const scale = (pixels: number) =>
    pixels === 0 ? 0 : Math.max(1, Math.floor((2 * pixels * size + full) / (2 * full)))
  // A window that is drawn shifts the image already.
  const shift = spec.resize === 'crop' ? 0 : scale(spec.shift)
  return { ...spec, shift, cutout: scale(spec.cutout ?? 0) }
}

/** The index that `i` means in 0 … size - 1, reflected at the borders without repeating them: -1 is 1. */
export function reflect(i: number, size: number): number {
  if (size === 1) return 0
  const period = 2 * (size - 1)
  const within = ((i % period) + period) % period
  return within < size ? within : period - within
}
