import { z } from 'zod'

/**
 * A model is data: a list of layer specs that travels over the wire and that every engine compiles.
 * Images are NHWC, kernels HWIO. Padding is `same` as TensorFlow has it (for stride 2 on an even size: 0 before, 1 after),
 * `valid` (none), or numbers of zeros, [[top, bottom], [left, right]]; PyTorch's `padding=1` is [[1, 1], [1, 1]].
 */

const size = z.int().min(1).max(65_536)
const pair = z.tuple([size, size])
/** Zeros before and after. Less than a window has, so that each window sees a pixel (`outputShapes` checks that). */
const sides = z.tuple([z.int().min(0).max(65_535), z.int().min(0).max(65_535)])
const padding = z.union([z.enum(['same', 'valid']), z.tuple([sides, sides])])
const window = { size: pair, stride: pair, padding }

export const layerSpec = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('conv2d'),
    name: z.string().min(1).max(64),
    filters: size,
    kernel: pair,
    stride: pair,
    padding,
    /** Whether its kernel and bias stay as they are; false or left out trains them. */
    frozen: z.boolean().optional(),
  }),
  z.strictObject({ kind: z.literal('relu') }),
  z.strictObject({ kind: z.literal('dropout'), rate: z.number().min(0).lt(1) }),
  z.strictObject({ kind: z.literal('maxPool'), ...window }),
  z.strictObject({ kind: z.literal('averagePool'), ...window }),
  z.strictObject({ kind: z.literal('sumPool'), ...window }),
  z.strictObject({ kind: z.literal('globalAveragePool') }),
])

export const modelSpec = z.strictObject({
  name: z.string().min(1).max(64),
  /** [height, width, channels] of one image. */
  input: z.tuple([size, size, size]),
  layers: z.array(layerSpec).min(1).max(256),
  /** What turns the last layer's `classes` outputs into a loss: softmax or sigmoid cross-entropy. */
  head: z.enum(['softmax', 'sigmoid']),
  classes: z.int().min(2).max(65_536),
  /**
   * ε of the loss that is trained on: the label's target is (1 - ε) + ε/classes and the others' are ε/classes (Szegedy et al., "Rethinking
   * the Inception Architecture", 2016); with a sigmoid for each class ε/2 stands for ε/classes. 0 where left out.
   */
  labelSmoothing: z.number().min(0).lt(1).optional(),
})

/** One layer. */
export type LayerSpec = z.infer<typeof layerSpec>
/** A whole network. */
export type ModelSpec = z.infer<typeof modelSpec>
export type Padding = z.infer<typeof padding>
/** [height, width, channels]. */
export type Shape = readonly [height: number, width: number, channels: number]
