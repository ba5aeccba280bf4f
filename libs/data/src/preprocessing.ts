import { z } from 'zod'

/**
 * What is done to an image before the network sees it; travels over the wire, so that workers need no data set to know.
 */
export const preprocessingSpec = z.discriminatedUnion('kind', [
  /** Byte / 255, less the channel's mean, by the channel's deviation. */
  z.strictObject({
    kind: z.literal('channels'),
    mean: z.array(z.number()),
    deviation: z.array(z.number().positive()),
  }),
  /** Global contrast normalisation: the image less its own mean, scaled to a norm of `scale`. */
  z.strictObject({ kind: z.literal('gcn'), scale: z.number().positive() }),
  /** Nothing: the numbers are as the network takes them. */
  z.strictObject({ kind: z.literal('none') }),
])
export type PreprocessingSpec = z.infer<typeof preprocessingSpec>

/**
 * The norm that global contrast normalisation gives an image (Goodfellow et al., "Maxout Networks", 2013, whose
 * preprocessing the All-CNN paper uses); with 3,072 numbers it makes their deviation about 1.
 */
export const GCN_SCALE = 55

/**
 * Normalises the contrast of one image in place: x ← scale·(x - mean) / |x - mean|. An image of one colour becomes 0.
 */
export function normaliseContrast(image: Float32Array, scale: number): void {
  let sum = 0
  for (const value of image) sum += value
  const mean = sum / image.length
  let squares = 0
  for (const value of image) squares += (value - mean) * (value - mean)
  const factor = squares > 1e-8 ? scale / Math.sqrt(squares) : 0
  for (let i = 0; i < image.length; i++) image[i] = factor * (image[i] - mean)
}

/**
 * The preprocessing of images of `size` pixels a side instead of `full`. A norm is over all numbers of an image, of which
 * there are fewer: scaled, it gives each of them the same deviation.
 */
export function scalePreprocessing(spec: PreprocessingSpec, size: number, full: number): PreprocessingSpec {
  return spec.kind === 'gcn' ? { ...spec, scale: (spec.scale * size) / full } : spec
}
