import { Purpose, RandomStream } from '@convoy/random'
import { parameterLayout, type ParameterView } from './layout.ts'
import type { ModelSpec } from './spec.ts'

/** The kernels of a model, the first layer's first. */
function kernelsOf(model: ModelSpec): ParameterView[] {
  return parameterLayout(model).views.filter(({ role }) => role === 'kernel')
}

/**
 * Has the first filters of all layers but the first and the last copy a channel of their input each, as many as there are of both;
 * the others stay as they are drawn (Zagoruyko and Komodakis, "DiracNets", 2017; PyTorch's `dirac_`). With the `same` padding
 * of a layer of stride 2 the middle of a window is its second row and column, so that one copies every second pixel.
 *
 * @param parameters Flat float32 in the model's layout, changed in place.
 */
export function copyChannels(model: ModelSpec, parameters: Float32Array): void {
  for (const { shape, offset } of kernelsOf(model).slice(1, -1)) {
    const [height, width, input, filters] = shape
    const copies = Math.min(input, filters)
    for (let row = 0; row < height * width * input; row++) {
      parameters.fill(0, offset + row * filters, offset + row * filters + copies)
    }
    const middle = (height >> 1) * width + (width >> 1)
    for (let channel = 0; channel < copies; channel++) {
      parameters[offset + (middle * input + channel) * filters + channel] = 1
    }
  }
}

/** Eigenvectors of the covariance of what the first layer's filters see. */
export interface Patches {
  /** From the largest on. */
  readonly eigenvalues: ArrayLike<number>
  /** One for each eigenvalue, of length 1, [kernel height, kernel width, channels]. */
  readonly eigenvectors: readonly ArrayLike<number>[]
}

/**
 * A first layer whose outputs are uncorrelated and of one variance (Page, "How to Train Your ResNet 8: Bag of Tricks", 2019): the
 * eigenvectors, each divided by √(eigenvalue + epsilon), then their negatives, since a ReLU takes one side; from the largest
 * eigenvalue on as many of each as there are filters for. The filters that are left are combinations of them, drawn from the seed, of
 * the same variance. Only exactly rounded operations, in float64, rounded once.
 *
 * @param parameters Flat float32 in the model's layout, changed in place.
 */
export function whitenFirst(
  model: ModelSpec,
  parameters: Float32Array,
  { eigenvalues, eigenvectors }: Patches,
  options: { readonly epsilon: number; readonly seed: number },
): void {
  const [{ shape, offset, size }] = kernelsOf(model)
  const filters = shape[3]
  const length = size / filters
  const directions = eigenvectors.map((vector, i) =>
    Float64Array.from(vector, (value) => value / Math.sqrt(eigenvalues[i] + options.epsilon)),
  )
  const pairs = Math.min(directions.length, filters >> 1)
  // The stream of the kernel that this one replaces.
  const random = new RandomStream(options.seed, Purpose.initialisation, 0)
  const weights = new Float64Array(directions.length)
  for (let filter = 0; filter < filters; filter++) {
    if (filter < 2 * pairs) {
      weights.fill(0)
      weights[filter % pairs] = filter < pairs ? 1 : -1
    } else {
      weights.forEach((_, i) => (weights[i] = 2 * random.uniform() - 1))
      const norm = Math.sqrt(weights.reduce((sum, value) => sum + value * value, 0))
      weights.forEach((value, i) => (weights[i] = value / norm))
    }
    for (let row = 0; row < length; row++) {
      const value = directions.reduce((sum, direction, i) => sum + weights[i] * direction[row], 0)
      parameters[offset + row * filters + filter] = value
    }
  }
}

/**
 * Scales each layer so that its outputs have deviation 1 (after Mishkin and Matas, "All you need is a good init", 2015, in one pass:
 * with biases of 0 outputs grow as the kernels do, through ReLU, dropout and pooling too).
 *
 * @param parameters Flat float32 in the model's layout, changed in place; biases 0.
 * @param deviations Those of each layer's outputs with these parameters, the first layer's first; of as many layers as are to be scaled.
 */
export function scaleOutputs(
  model: ModelSpec,
  parameters: Float32Array,
  deviations: readonly number[],
): void {
  kernelsOf(model)
    .slice(0, deviations.length)
    .forEach(({ offset, size }, layer) => {
      // The layer before has been scaled already.
      const factor = (deviations[layer - 1] ?? 1) / deviations[layer]
      for (let i = offset; i < offset + size; i++) parameters[i] *= factor
    })
}
