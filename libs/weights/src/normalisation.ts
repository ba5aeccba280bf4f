import { ConvoyError } from '@convoy/errors'
import {
  byNumber,
  type Described,
  type DescribedLayer,
  type StoredLayer,
  type StoredTensor,
  type WeightsFile,
} from './file.ts'

/** What is left of a file's layers where each is a convolution with its bias, and what was done to get there, in sentences. */
export interface Convolutions {
  readonly layers: readonly StoredLayer[]
  readonly notes: readonly string[]
}

/** A batch norm at rest: y = (x - mean) · scale / √(variance + ε) + shift, for each channel. */
interface BatchNorm {
  readonly name: string
  readonly size: number
  readonly scale: Float32Array | undefined
  readonly shift: Float32Array | undefined
  readonly mean: Float32Array
  readonly variance: Float32Array
  readonly epsilon: number
}

/** ε where a file does not say it: the libraries' own (torch.nn.BatchNorm2d, keras.layers.BatchNormalization). */
const EPSILON = { pytorch: 1e-5, keras: 1e-3 } as const

function misfit(what: string, remedy: string): ConvoyError {
  return new ConvoyError('E_WEIGHTS_FIT', what, remedy)
}

const roleOf = ({ name }: StoredTensor) =>
  name
    .replace(/:\d+$/, '')
    .replace(/^.*[/.]/, '')
    .replace(/^.*_(gamma|beta|running_mean|running_std)$/, '$1')

/** A layer as a batch norm; undefined where it is none. */
function batchNormOf(layer: StoredLayer, epsilons: Described['epsilons']): BatchNorm | undefined {
  const tensors = layer.tensors.filter(({ values }) => values)
  const find = (...names: string[]) => tensors.find((tensor) => names.includes(roleOf(tensor)))?.values
  let [mean, variance] = [find('running_mean', 'moving_mean'), find('running_var', 'moving_variance')]
  let [scale, shift] = [find('weight', 'gamma'), find('bias', 'beta')]
  // Keras 3 numbers them: scale, shift, mean, variance.
  if (/(^|\/)batch_normalization(_\d+)?$/.test(layer.name) && tensors.length === 4 && !mean)
    [scale, shift, mean, variance] = tensors.map(({ values }) => values)
  if (!mean || !variance) return undefined
  const pytorch = tensors.some((tensor) => roleOf(tensor) === 'running_var')
  const epsilon = epsilons[layer.name] ?? EPSILON[pytorch ? 'pytorch' : 'keras']
  return { name: layer.name, size: mean.length, scale, shift, mean, variance, epsilon }
}

/** What a network does to images first, which Convoy does outside of it, or draws at random in training only. */
const harmless = /(^|[/.])(normalization|rescaling|random_\w+|seed_generator)[^/.]*$/

/** Whether kernels lie in PyTorch's order, outputs first: they are as high as wide. */
export function isOutputsFirst(kernels: readonly (readonly number[])[], otherwise: boolean): boolean {
  const four = kernels.filter(({ length }) => length === 4)
  const first = four.every(([, , height, width]) => height === width)
  const last = four.every(([height, width]) => height === width)
  return first === last ? otherwise : first
}

/** The convolution with the batch norm behind it as part of its kernel and bias, computed in float64 and rounded once. */
function fold(layer: StoredLayer, norm: BatchNorm, outputsFirst: boolean): StoredLayer {
  const [kernel, bias] = layer.tensors
  const factors = Float64Array.from(
    norm.variance,
    (variance, c) => (norm.scale?.[c] ?? 1) / Math.sqrt(variance + norm.epsilon),
  )
  const from = kernel.values!
  const inner = from.length / norm.size
  const values = from.map((value, i) => value * factors[outputsFirst ? Math.floor(i / inner) : i % norm.size])
  const biases = Float32Array.from(
    factors,
    (factor, c) => ((bias?.values?.[c] ?? 0) - norm.mean[c]) * factor + (norm.shift?.[c] ?? 0),
  )
  return {
    name: layer.name,
    tensors: [
      { ...kernel, values },
      { name: bias?.name ?? `${layer.name}.bias`, shape: [norm.size], kind: 'float32', values: biases },
    ],
  }
}

/** A layer with a bias of 0 where it has a kernel alone. */
function withBias(layer: StoredLayer, outputsFirst: boolean): StoredLayer {
  const [kernel] = layer.tensors
  if (layer.tensors.length > 1 || kernel.shape.length < 2) return layer
  const size = outputsFirst ? kernel.shape[0] : kernel.shape.at(-1)!
  const bias = { name: `${layer.name}.bias`, shape: [size], kind: 'float32', values: new Float32Array(size) }
  return { name: layer.name, tensors: [kernel, bias] }
}

/** What stands before a batch norm, where the file describes its network; undefined where it does not. */
function precedingLayer(norm: BatchNorm, described: Described | undefined): DescribedLayer | undefined {
  const at = described?.layers.findIndex(({ name }) => name === norm.name) ?? -1
  return at < 0 ? undefined : (described?.layers[at - 1] ?? { name: 'image', what: 'the image' })
}

/** Where a batch norm's convolution is among the layers: the one before it, or the one of its number. */
function convolutionOf(
  norm: BatchNorm,
  norms: readonly BatchNorm[],
  layers: readonly StoredLayer[],
  fits: (layer: StoredLayer | undefined, norm: BatchNorm) => boolean,
): StoredLayer | undefined {
  const isNorm = (layer: StoredLayer) => norms.some(({ name }) => name === layer.name)
  const at = layers.findIndex(({ name }) => name === norm.name)
  const adjacent = norms.every(({ name }) => {
    const i = layers.findIndex((layer) => layer.name === name)
    return i > 0 && !isNorm(layers[i - 1])
  })
  if (adjacent) return fits(layers[at - 1], norm) ? layers[at - 1] : undefined
  // Sorted by name: bn3 belongs to conv3, batch_normalization_2 to conv2d_2.
  const convolutions = layers.filter((layer) => !isNorm(layer))
  const key = (name: string) => {
    const parts = /^(.*?)[a-z_]+(?:[12]d)?_?(\d*)$/i.exec(name)
    return parts ? `${parts[1]}:${parts[2]}` : name
  }
  const sameNumber = convolutions.filter(({ name }) => key(name) === key(norm.name))
  if (sameNumber.length === 1) return fits(sameNumber[0], norm) ? sameNumber[0] : undefined
  return undefined
}

/**
 * The convolutions of a file: each batch norm behind one is folded into it, which is exact where nothing lies between the two; a bias
 * that is missing is 0. Tensors that are no numbers of the network are passed over and named. Throws E_WEIGHTS_FIT with the name
 * of a layer that is neither.
 */
export function convolutionsOf(file: WeightsFile): Convolutions {
  const notes: string[] = []
  const kinds = new Set(
    file.layers.flatMap(({ tensors }) => tensors.map(({ kind, values }) => values && kind)),
  )
  for (const kind of kinds)
    if (kind !== undefined && kind !== 'float32')
      notes.push(`${kind} converted to float32, ${kind === 'float64' ? 'rounded' : 'exactly'}`)
  const other = file.layers.flatMap(({ tensors }) => tensors.filter(({ values }) => !values))
  const counts = other.filter(({ name }) => !name.endsWith('num_batches_tracked'))
  if (counts.length > 0)
    notes.push(
      `passed over: ${counts.map(({ name, kind, shape }) => `${name} (${kind} ${shape.join('×')})`).join(', ')}`,
    )
  const passed = file.layers.filter(({ name }) => harmless.test(name))
  const skipped = passed.filter(({ tensors }) => tensors.some(({ values }) => values))
  if (skipped.length > 0)
    notes.push(
      `passed over: ${skipped.map(({ name }) => name).join(', ')}, which Convoy leaves to the normalisation of images`,
    )
  const layers = file.layers
    .filter((layer) => !passed.includes(layer))
    .map(({ name, tensors }) => ({ name, tensors: tensors.filter(({ values }) => values) }))
    .filter(({ tensors }) => tensors.length > 0)
  const norms = layers.flatMap((layer) => batchNormOf(layer, file.described?.epsilons ?? {}) ?? [])
  const isNorm = ({ name }: StoredLayer) => norms.some((norm) => norm.name === name)
  const kernels = layers.filter((layer) => !isNorm(layer))
  const pytorch = norms.some(({ epsilon }) => epsilon === EPSILON.pytorch)
  const outputsFirst = isOutputsFirst(
    kernels.map(({ tensors }) => tensors[0].shape),
    pytorch,
  )
  const fits = (layer: StoredLayer | undefined, norm: BatchNorm) => {
    const shape = layer?.tensors[0].shape ?? []
    return shape.length === 4 && (outputsFirst ? shape[0] : shape[3]) === norm.size
  }
  const folded = new Map<StoredLayer, StoredLayer>()
  for (const norm of norms) {
    const convolution = convolutionOf(norm, norms, layers, fits)
    const before = precedingLayer(norm, file.described)
    const other = before !== undefined && !before.what.startsWith('conv2d')
    if (!convolution || folded.has(convolution) || other) {
      throw misfit(
        `${norm.name} is a batch norm of ${norm.size} channels that follows ${other ? before.what : 'no convolution of as many filters'}: it cannot be folded into one`,
        'Fold it yourself, or train a network whose batch norms stand between a convolution and its ReLU.',
      )
    }
    folded.set(convolution, fold(convolution, norm, outputsFirst))
  }
  if (norms.length > 0) {
    const epsilons = [...new Set(norms.map(({ epsilon }) => epsilon))].join(', ')
    const pairs = [...folded.keys()].map(({ name }) => name).sort(byNumber)
    notes.push(
      `${norms.length} batch norms folded into the convolutions before them (${pairs.join(', ')}; ε ${epsilons}), taken to stand before the ReLU`,
    )
  }
  const bare: string[] = []
  const complete = kernels.map((layer) => {
    const convolution = folded.get(layer) ?? layer
    if (convolution.tensors.length === 1 && convolution.tensors[0].shape.length > 1) bare.push(layer.name)
    return withBias(convolution, outputsFirst)
  })
  if (bare.length > 0) notes.push(`without bias, which is 0 then: ${bare.join(', ')}`)
  return { layers: complete, notes }
}
