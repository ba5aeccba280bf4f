import { ConvoyError } from '@convoy/errors'
import { inputShapes, outputShapes, volume } from './shapes.ts'
import { modelSpec, type ModelSpec } from './spec.ts'

/** One named tensor inside the flat parameter buffer. */
export interface ParameterView {
  /** Such as `conv1/kernel`. */
  readonly name: string
  /** Index into the model's layers. */
  readonly layer: number
  readonly role: 'kernel' | 'bias'
  /** HWIO for a kernel, [channels] for a bias. */
  readonly shape: readonly number[]
  /** Where it starts in the flat buffer, in elements. */
  readonly offset: number
  /** How many elements it has. */
  readonly size: number
}

/** The flat float32 buffer of all parameters: layer by layer, kernel before bias, nothing between. */
export interface ParameterLayout {
  readonly size: number
  readonly views: readonly ParameterView[]
}

/** Where each parameter of the model lives in the flat buffer. */
export function parameterLayout(model: ModelSpec): ParameterLayout {
  const inputs = inputShapes(model)
  const views: ParameterView[] = []
  let offset = 0
  model.layers.forEach((layer, index) => {
    if (layer.kind !== 'conv2d') return
    const kernel = [layer.kernel[0], layer.kernel[1], inputs[index][2], layer.filters]
    for (const [role, shape] of [
      ['kernel', kernel],
      ['bias', [layer.filters]],
    ] as const) {
      const size = shape.reduce((product, n) => product * n, 1)
      views.push({ name: `${layer.name}/${role}`, layer: index, role, shape, offset, size })
      offset += size
    }
  })
  return { size: offset, views }
}

/**
 * Where the gradient of each trained parameter lives in the flat gradient: the parameters of the layers that are not
 * frozen, in their order, nothing between. Without frozen layers that is the layout of the parameters.
 */
export function trainedLayout(model: ModelSpec): ParameterLayout {
  let size = 0
  const views = parameterLayout(model).views.flatMap((view) => {
    if (isFrozen(model, view)) return []
    const trained = { ...view, offset: size }
    size += view.size
    return [trained]
  })
  return { size, views }
}

/**
 * Where the gradient of a model is cut that is sent in two frames: a backward pass has the layers from there on when most of its work
 * is still to come, and they have most of the numbers. The kernel that has a tenth of all numbers or more before it; 0, which is none,
 * where no kernel has, or layers are frozen.
 */
export function gradientCut(model: ModelSpec): number {
  const { size, views } = parameterLayout(model)
  if (trainedLayout(model).size < size) return 0
  return views.find(({ role, offset }) => role === 'kernel' && offset >= size / 10)?.offset ?? 0
}

/** A stretch of trained parameters: where it is among all parameters, and where in the flat gradient. */
export interface TrainedRange {
  readonly parameter: number
  readonly gradient: number
  readonly size: number
}

/** The trained parameters in as few stretches as there are, in order: one, where only first layers are frozen. */
export function trainedRanges(model: ModelSpec): TrainedRange[] {
  const ranges: TrainedRange[] = []
  let gradient = 0
  for (const view of parameterLayout(model).views) {
    if (isFrozen(model, view)) continue
    const last = ranges.at(-1)
    if (last && last.parameter + last.size === view.offset)
      ranges[ranges.length - 1] = { ...last, size: last.size + view.size }
    else ranges.push({ parameter: view.offset, gradient, size: view.size })
    gradient += view.size
  }
  return ranges
}

function isFrozen(model: ModelSpec, { layer }: ParameterView): boolean {
  const spec = model.layers[layer]
  return spec.kind === 'conv2d' && spec.frozen === true
}

/**
 * The model with layers frozen.
 *
 * @param which Names of convolutions with commas between, or `all-but-N` for all but the last N.
 * Throws E_MODEL where there is no such layer, or none is left to train.
 */
export function freeze(model: ModelSpec, which: string): ModelSpec {
  const names = model.layers.flatMap((layer) => (layer.kind === 'conv2d' ? [layer.name] : []))
  const count = /^all-but-(\d+)$/.exec(which)?.[1]
  const frozen =
    count === undefined
      ? which.split(',').map((name) => name.trim())
      : names.slice(0, Math.max(0, names.length - Number(count)))
  const strange = frozen.find((name) => !names.includes(name))
  if (strange !== undefined || names.every((name) => frozen.includes(name))) {
    throw new ConvoyError(
      'E_MODEL',
      strange === undefined
        ? `${which} leaves no layer of ${model.name} to train`
        : `${model.name} has no layer ${JSON.stringify(strange)} to freeze`,
      `Its layers are ${names.join(', ')}; give --freeze some of them with commas between, or all-but-2.`,
    )
  }
  return {
    ...model,
    layers: model.layers.map((layer) =>
      layer.kind === 'conv2d' && frozen.includes(layer.name) ? { ...layer, frozen: true } : layer,
    ),
  }
}

/**
 * Checks a model that came from outside: its form, that its layers fit together, that names are unique and that it
 * ends in one number a class. Throws E_MODEL.
 */
export function checkModel(candidate: unknown): ModelSpec {
  const parsed = modelSpec.safeParse(candidate)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    throw new ConvoyError(
      'E_MODEL',
      `the model is malformed at ${issue.path.join('.') || 'its top'}: ${issue.message}`,
      'Use a model from `convoy train --help`, or mend the layer list.',
    )
  }
  const model = parsed.data
  const last = outputShapes(model).at(-1)!
  if (volume(last) !== model.classes) {
    throw new ConvoyError(
      'E_MODEL',
      `${model.name} ends in ${last.join('×')} outputs but has ${model.classes} classes`,
      'End the layers with a convolution of one filter a class and globalAveragePool.',
    )
  }
  const names = model.layers.flatMap((layer) => (layer.kind === 'conv2d' ? [layer.name] : []))
  if (new Set(names).size !== names.length || names.length === 0) {
    throw new ConvoyError(
      'E_MODEL',
      `${model.name} needs at least one convolution, each with a name of its own`,
      'Rename the layers.',
    )
  }
  if (trainedLayout(model).size === 0) {
    throw new ConvoyError('E_MODEL', `${model.name} has no layer to train`, 'Leave one that is not frozen.')
  }
  return model
}
