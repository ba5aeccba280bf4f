import { preprocessingSpec } from '@convoy/data/browser'
import { ConvoyError } from '@convoy/errors'
import { modelSpec } from '@convoy/model'
import { z } from 'zod'

/** One tensor of a weights file, its last dimension the fastest. */
export interface StoredTensor {
  readonly name: string
  readonly shape: readonly number[]
  /** What its numbers are in the file, such as `float16` or `int64`. */
  readonly kind: string
  /** Its numbers; undefined where they are no floating-point ones, so none that a network multiplies with. */
  readonly values: Float32Array | undefined
}

/** The tensors of one layer: a convolution's kernel and, after it, its bias. */
export interface StoredLayer {
  readonly name: string
  readonly tensors: readonly StoredTensor[]
}

/** What Convoy writes beside the numbers, so that a file can be used without the run that it comes from. */
export const networkSpec = z.object({
  model: modelSpec,
  /** Names of the classes, in the order of the logits. */
  classes: z.array(z.string()).optional(),
  /** What is done to an image before the network sees it. */
  preprocessing: preprocessingSpec.optional(),
})
export type Network = z.infer<typeof networkSpec>

/** A weights file as it was read. */
export interface WeightsFile {
  /** In words, such as `Keras 2, save_weights`. */
  readonly format: string
  /** In the order of the network. */
  readonly layers: readonly StoredLayer[]
  /**
   * Whether its kernels are Theano's, which turns them by 180° before it correlates: `yes`, `no`, or `oihw` where they
   * are if they lie in Theano's order.
   */
  readonly turned: 'yes' | 'no' | 'oihw'
  /** The network that the file itself describes, beside Convoy's own description. */
  readonly described?: Described
  readonly network?: Network
}

/** What a file of Keras's says of its network. */
export interface Described {
  /** The layers that change numbers, in order: convolutions, activations, poolings, batch norms; and what Convoy has not, by its class. */
  readonly layers: readonly DescribedLayer[]
  /** ε of each batch norm, by its layer's name. */
  readonly epsilons: Readonly<Record<string, number>>
}

export interface DescribedLayer {
  readonly name: string
  /** In words that compare, such as `conv2d 3×3 stride 2×2 same`, `relu`, `maxPool 3×3 stride 2×2 same`. */
  readonly what: string
}

/**
 * Bytes of a file, or of what is unpacked of it, at most: All-CNN-C at four times its width has 176 MB in float64. What is larger is
 * another network, or made to fill the memory.
 */
export const LARGEST_FILE = 192 * 1024 * 1024

/** The name of the attribute, key or field under which a `Network` is kept. */
export const NETWORK_KEY = 'convoy'

/** E_WEIGHTS_FILE for a file. */
export function unreadable(
  file: string,
  what: string,
  cause?: unknown,
  remedy = 'Give a whole file of Keras (.h5, .keras), TensorFlow.js (model.json), safetensors, PyTorch (.pt), or a checkpoint (.convoy).',
): ConvoyError {
  return new ConvoyError('E_WEIGHTS_FILE', `${file}: ${what}`, remedy, { cause })
}

/** Reads a `Network` from its JSON; undefined where a file has none. Throws E_WEIGHTS_FILE where it is malformed. */
export function parseNetwork(json: unknown, file: string): Network | undefined {
  if (json === undefined || json === null) return undefined
  let value: unknown
  try {
    value = typeof json === 'string' ? JSON.parse(json) : json
  } catch {
    throw unreadable(file, 'its description of the network is not JSON')
  }
  const parsed = networkSpec.safeParse(value)
  if (parsed.success) return parsed.data
  throw unreadable(file, 'its description of the network is malformed')
}

/** Orders `conv2` before `conv10`. */
export function byNumber(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true })
}

/** Puts tensors with one name before their last `/` or `.` together, in the order of their first. */
export function groupTensors(tensors: readonly StoredTensor[]): StoredLayer[] {
  const layers = new Map<string, StoredTensor[]>()
  for (const tensor of tensors) {
    const name = tensor.name.replace(/[/.][^/.]*$/, '')
    layers.set(name, [...(layers.get(name) ?? []), tensor])
  }
  // A kernel has more dimensions than its bias, whatever they are called.
  return [...layers].map(([name, group]) => ({
    name,
    tensors: group.sort((a, b) => b.shape.length - a.shape.length),
  }))
}
