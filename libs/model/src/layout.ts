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
  return model
}
