import { trainedLayout } from './layout.ts'
import type { ModelSpec } from './spec.ts'

/** The deviation of a normal number of deviation 1 after a ReLU: √((1 - 1/π) / 2). */
const RELU_DEVIATION = Math.sqrt((1 - 1 / Math.PI) / 2)

/** A kernel for scaled weight standardisation: where it is in the layout of the trained parameters, and the constant of its layer. */
export interface StandardisedKernel {
  readonly name: string
  readonly offset: number
  readonly size: number
  readonly filters: number
  /**
   * c, which keeps the variance of activations from layer to layer (Brock et al. 2021): √2 / √(1 - 1/π) = 1.71 where the input has
   * gone through a ReLU since the last convolution, else 1.
   */
  readonly scale: number
}

/** The kernels that are standardised: those of all trained layers but the last layer of the model, whose outputs are the logits. */
export function standardisedKernels(model: ModelSpec): StandardisedKernel[] {
  const last = model.layers.findLastIndex(({ kind }) => kind === 'conv2d')
  return trainedLayout(model).views.flatMap(({ name, role, layer, shape, offset, size }) => {
    if (role === 'bias' || layer === last) return []
    const before = model.layers.slice(0, layer)
    const since = before.slice(before.findLastIndex(({ kind }) => kind === 'conv2d') + 1)
    const scale = since.some(({ kind }) => kind === 'relu') ? 1 / RELU_DEVIATION : 1
    return [{ name, offset, size, filters: shape[3], scale }]
  })
}
