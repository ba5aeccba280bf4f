import { ConvoyError } from '@convoy/errors'
import {
  paddedLike,
  parameterLayout,
  symmetricPadding,
  type ModelSpec,
  type ParameterView,
} from '@convoy/model'
import { byNumber, unreadable, type StoredLayer, type StoredTensor, type WeightsFile } from './file.ts'
import { convolutionsOf, isOutputsFirst } from './normalisation.ts'

/** How a file's kernels lie: HWIO, OIHW, or OIHW and turned by 180° (Theano's convolution). */
export type KernelOrder = 'hwio' | 'oihw' | 'hwio-turned' | 'oihw-turned'

/** A line of the table of what went where. */
export interface Placement {
  /** The model's layer. */
  readonly layer: string
  /** The kernel's shape in the model, HWIO. */
  readonly shape: readonly number[]
  /** The file's layer, and its kernel's shape there; undefined where the layer starts anew. */
  readonly from: { readonly layer: string; readonly shape: readonly number[] } | undefined
}

export interface Matched {
  /** Flat float32 in the model's layout; what starts anew is 0 here. */
  readonly parameters: Float32Array
  readonly order: KernelOrder
  readonly table: readonly Placement[]
  /** Views of the parameters that no tensor of the file fits: the last layer's, for another number of classes. */
  readonly anew: readonly ParameterView[]
  /** What was done to get there, in sentences. */
  readonly notes: readonly string[]
}

const shown = (shape: readonly number[] | undefined) => (shape?.length ? shape.join('×') : 'nothing')

function misfit(what: string): ConvoyError {
  return new ConvoyError(
    'E_WEIGHTS_FIT',
    what,
    'Use weights of the same network: check --model and --width; `convoy weights info FILE` lists what the file holds.',
  )
}

/**
 * Refuses weights that are NaN or infinite. A file with such weights can be read and written, but an engine need not notice:
 * a ReLU may turn NaN to 0, and the answer looks like any other. Throws E_WEIGHTS_FILE.
 */
export function requireFinite(parameters: Float32Array, model: ModelSpec, file: string): void {
  const at = parameters.findIndex((value) => !Number.isFinite(value))
  if (at < 0) return
  const count = parameters.reduce((sum, value) => sum + (Number.isFinite(value) ? 0 : 1), 0)
  const view = parameterLayout(model).views.find(({ offset, size }) => at < offset + size)!
  throw unreadable(
    file,
    `${count} of ${parameters.length} weights are NaN or infinite, the first in ${view.name}`,
    undefined,
    'Take an earlier checkpoint, from before the training diverged.',
  )
}

/** A kernel's shape as HWIO; a dense layer's [input, output] is a convolution of 1×1. */
function hwioShape(shape: readonly number[], order: KernelOrder): readonly number[] {
  if (shape.length === 2) return order.startsWith('hwio') ? [1, 1, ...shape] : [1, 1, shape[1], shape[0]]
  if (shape.length !== 4 || order.startsWith('hwio')) return shape
  return [shape[2], shape[3], shape[1], shape[0]]
}

const equal = (a: readonly number[], b: readonly number[]) =>
  a.length === b.length && a.every((n, i) => n === b[i])

/** The order that fits the most layers, HWIO where both do. */
function orderOf(
  file: WeightsFile,
  layers: readonly StoredLayer[],
  kernels: readonly ParameterView[],
): KernelOrder {
  const fits = (order: KernelOrder) =>
    kernels.filter((view, i) => layers[i] && equal(hwioShape(layers[i].tensors[0].shape, order), view.shape))
      .length
  const theano = fits('oihw') > fits('hwio')
  const turned = file.turned === 'yes' || (file.turned === 'oihw' && theano)
  return `${theano ? 'oihw' : 'hwio'}${turned ? '-turned' : ''}`
}

/** Whether a layer's kernel may be that of a view. */
type Alike = (layer: StoredLayer | undefined, view: ParameterView, order: KernelOrder) => boolean

/**
 * Layers in an order whose shapes are the model's: for each of its layers the first by name that has its shape. Undefined where there
 * is none, or where the layers stand in such an order already.
 */
function byShape(
  layers: readonly StoredLayer[],
  orders: readonly KernelOrder[],
  kernels: readonly ParameterView[],
  alike: Alike,
): StoredLayer[] | undefined {
  if (layers.length !== kernels.length) return undefined
  for (const order of orders) {
    const left = [...layers].sort((a, b) => byNumber(a.name, b.name))
    const found = kernels.flatMap((view) => {
      const at = left.findIndex((layer) => alike(layer, view, order))
      return at < 0 ? [] : left.splice(at, 1)
    })
    if (found.length === kernels.length) return found
  }
  return undefined
}

/** Copies a kernel into HWIO, bit by bit. */
function copyKernel(
  from: Float32Array,
  into: Float32Array,
  shape: readonly number[],
  order: KernelOrder,
): void {
  const [height, width, input, output] = shape
  // As whole numbers: a float that is read and written may lose the bits of a NaN.
  const source = new Uint32Array(from.buffer, from.byteOffset, from.length)
  const target = new Uint32Array(into.buffer, into.byteOffset, into.length)
  const turned = order.endsWith('-turned')
  let at = 0
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const row = turned ? height - 1 - y : y
      const column = turned ? width - 1 - x : x
      for (let i = 0; i < input; i++) {
        for (let o = 0; o < output; o++) {
          target[at++] = order.startsWith('hwio')
            ? source[((row * width + column) * input + i) * output + o]
            : source[((o * input + i) * height + row) * width + column]
        }
      }
    }
  }
}

/** Where a file's layers stop fitting, in words. */
function compare(
  view: ParameterView,
  layer: string,
  tensor: StoredTensor | undefined,
  order: KernelOrder,
  counts: string,
): void {
  const has = tensor && (view.role === 'kernel' ? hwioShape(tensor.shape, order) : tensor.shape)
  if (has && equal(has, view.shape)) return
  const theirs = tensor ? `${tensor.name} of ${layer} is ${shown(tensor.shape)}` : `${layer} has none`
  const axes = order.startsWith('oihw') && view.role === 'kernel' ? ' (in the order OIHW)' : ''
  throw misfit(`${view.name} is ${shown(view.shape)} in the model; in the file ${theirs}${axes}${counts}`)
}

/** The convolutions of a file in the order that was asked for, or in their own, or, where that does not fit, in one that fits in shape. */
function inOrder(
  file: WeightsFile,
  kernels: readonly ParameterView[],
  {
    newHead,
    order,
    names,
  }: { newHead: boolean; order: KernelOrder | undefined; names: readonly string[] | undefined },
): { layers: readonly StoredLayer[]; notes: readonly string[] } {
  const { layers, notes } = convolutionsOf(file)
  if (names) {
    const sorted = names.map((name) => layers.find((layer) => layer.name === name))
    const strange = names.find((_, i) => !sorted[i])
    if (strange !== undefined) {
      throw misfit(
        `the file has no layer ${JSON.stringify(strange)}; it has ${layers.map(({ name }) => name).join(', ')}`,
      )
    }
    return { layers: sorted.flatMap((layer) => layer ?? []), notes }
  }
  const alike: Alike = (layer, view, as) => {
    const shape = hwioShape(layer?.tensors[0].shape ?? [], as)
    if (newHead && view === kernels.at(-1)) return equal(shape.slice(0, 3), view.shape.slice(0, 3))
    return equal(shape, view.shape)
  }
  const own = order ?? orderOf(file, layers, kernels)
  const fits = kernels.every((view, i) => alike(layers[i], view, own))
  const found = fits ? undefined : byShape(layers, order ? [order] : ['hwio', 'oihw'], kernels, alike)
  if (!found) return { layers, notes }
  const text = found.map(({ name }) => name).join(', ')
  return {
    layers: found,
    notes: [
      ...notes,
      `in the order of shapes, and of names where these are alike: ${text} (--order says another)`,
    ],
  }
}

/**
 * Lays the weights of a file out for a model: its layers in order, each of which must have the shape of the model's.
 *
 * @param newHead Whether the last layer may have another number of outputs; it then starts anew.
 * @param order Of the kernels, where the file is known to be other than it looks.
 * @param names The file's layers in the network's order, where it is known to be another than it looks.
 * Throws E_WEIGHTS_FIT with the first layer that does not fit, and both shapes.
 */
export function matchWeights(
  file: WeightsFile,
  model: ModelSpec,
  {
    newHead = false,
    order,
    names,
  }: { newHead?: boolean; order?: KernelOrder; names?: readonly string[] } = {},
): Matched {
  const layout = parameterLayout(model)
  const kernels = layout.views.filter(({ role }) => role === 'kernel')
  const biases = layout.views.filter(({ role }) => role === 'bias')
  const { layers, notes } = inOrder(file, kernels, { newHead, order, names })
  // A layer that is missing is told of the one that stands in its place.
  const counts =
    layers.length === kernels.length
      ? ''
      : `; the file has ${layers.length} layers with weights, the model ${kernels.length}`
  const chosen = order ?? orderOf(file, layers, kernels)
  const parameters = new Float32Array(layout.size)
  const anew: ParameterView[] = []
  const table = kernels.map((kernel, i): Placement => {
    const name = kernel.name.replace(/\/kernel$/, '')
    const layer = layers.at(i)
    if (!layer) {
      throw misfit(
        `${kernel.name} is ${shown(kernel.shape)} in the model; the file ends after ${layers.length} of ${kernels.length} layers`,
      )
    }
    const [stored, storedBias, extra] = layer.tensors
    const shape = hwioShape(stored.shape, chosen)
    const last = i === kernels.length - 1
    const otherHead =
      last && !equal(shape, kernel.shape) && equal(shape.slice(0, 3), kernel.shape.slice(0, 3))
    if (newHead && otherHead) {
      anew.push(kernel, biases[i])
      return { layer: name, shape: kernel.shape, from: undefined }
    }
    compare(kernel, layer.name, stored, chosen, counts)
    compare(biases[i], layer.name, storedBias, chosen, counts)
    if (extra) throw misfit(`${extra.name} of the file (${shown(extra.shape)}) has no place in ${name}`)
    const at = (view: ParameterView) => parameters.subarray(view.offset, view.offset + view.size)
    copyKernel(stored.values!, at(kernel), kernel.shape, chosen)
    at(biases[i]).set(storedBias.values!)
    return { layer: name, shape: kernel.shape, from: { layer: layer.name, shape: stored.shape } }
  })
  const extra = layers.at(kernels.length)
  if (extra) {
    throw misfit(
      `the file has one more layer, ${extra.name} (${shown(extra.tensors[0].shape)}), than the ${kernels.length} of ${model.name}`,
    )
  }
  return { parameters, order: chosen, table, anew, notes }
}

/** Whether a file is PyTorch's: it says so, or it is one that any library writes, with kernels in PyTorch's order. */
export function isTorchBorn(file: WeightsFile, order?: KernelOrder): boolean {
  if (order !== undefined) return order === 'oihw'
  if (file.format.startsWith('PyTorch')) return true
  const kernels = file.layers.flatMap(({ tensors }) => tensors.map(({ shape }) => shape))
  return file.format === 'safetensors' && isOutputsFirst(kernels, false)
}

/** The model with the padding of a file's network: the one that the file names, or, of PyTorch's files, zeros on both sides. */
export function withPaddingOf(file: WeightsFile, model: ModelSpec, order?: KernelOrder): ModelSpec {
  if (file.network) return paddedLike(model, file.network.model)
  return isTorchBorn(file, order) ? symmetricPadding(model) : model
}
