import { trainedLayout } from './layout.ts'
import type { ModelSpec } from './spec.ts'

/** Of a layer whose input has gone through a ReLU, the length of a filter. */
const AFTER_RELU = 1.25

/** A kernel for Muon: where it is in the layout of the trained parameters, and how its layer is treated. */
export interface MuonKernel {
  readonly name: string
  readonly offset: number
  readonly size: number
  readonly filters: number
  /** What the rate is multiplied by. */
  readonly rate: number
  /** c: the length of a filter: 1.25 if the input has gone through a ReLU since the last convolution, else and in the last layer 1. */
  readonly scale: number
  /** Whether each filter's gradient has its mean taken out: between the first layer and the last. */
  readonly centred: boolean
  /** Whether its norm is held: in all layers but the last, whose outputs are the logits. */
  readonly held: boolean
}

export interface MuonKernelOptions {
  /** Whether the first layer whitens the images' patches; then it stays as it is. */
  readonly whitened?: boolean
  /** What the rate is multiplied by for the model's last layer; 1 where left out. */
  readonly lastRate?: number
  /** Whether norms are held, as they are unless weights were given. */
  readonly held?: boolean
}

/** The kernels of all trained layers. */
export function muonKernels(model: ModelSpec, options: MuonKernelOptions = {}): MuonKernel[] {
  const { whitened = false, lastRate = 1, held = true } = options
  const convolutions = model.layers.flatMap(({ kind }, layer) => (kind === 'conv2d' ? [layer] : []))
  const [first, last] = [convolutions[0], convolutions.at(-1)]
  return trainedLayout(model).views.flatMap(({ name, role, layer, shape, offset, size }) => {
    if (role === 'bias') return []
    const number = convolutions.indexOf(layer)
    const since = model.layers.slice((convolutions[number - 1] ?? -1) + 1, layer)
    const fixed = whitened && layer === first
    return [
      {
        ...{ name, offset, size, filters: shape[3] },
        held: held && layer !== last && !fixed,
        centred: layer !== first && layer !== last,
        rate: fixed ? 0 : layer === last ? lastRate : 1,
        scale: layer !== last && since.some(({ kind }) => kind === 'relu') ? AFTER_RELU : 1,
      },
    ]
  })
}
