import { trainedLayout } from './layout.ts'
import type { ModelSpec } from './spec.ts'

/** Of a layer whose input has gone through a ReLU, the length of a filter. */
const AFTER_RELU = 1.7

/** A kernel for Muon: where it is in the layout of the trained parameters, and how its layer is treated. */
export interface MuonKernel {
  readonly name: string
  readonly offset: number
  readonly size: number
  readonly filters: number
  /** What the rate is multiplied by. */
  readonly rate: number
  /** c: the length of a filter. Where not given, 1.7 if the input has gone through a ReLU since the last convolution, else and in the last layer 1. */
  readonly scale: number
  /** Whether each filter's gradient has its mean taken out: between the first layer and the last. */
  readonly centred: boolean
  /** Whether its norm is held: in all layers but the last, whose outputs are the logits. */
  readonly held: boolean
}

export interface MuonKernelOptions {
  /** What the rate is multiplied by for the model's first layer; 1 where left out. */
  readonly firstRate?: number
  /** And for its last; 1 where left out. */
  readonly lastRate?: number
  /** c of each layer of the model, frozen ones too, such as those that make the deviation of outputs 1 at the start. */
  readonly scales?: readonly number[]
}

/** The kernels of all trained layers. */
export function muonKernels(model: ModelSpec, options: MuonKernelOptions = {}): MuonKernel[] {
  const { firstRate = 1, lastRate = 1, scales } = options
  const convolutions = model.layers.flatMap(({ kind }, layer) => (kind === 'conv2d' ? [layer] : []))
  const [first, last] = [convolutions[0], convolutions.at(-1)]
  return trainedLayout(model).views.flatMap(({ name, role, layer, shape, offset, size }) => {
    if (role === 'bias') return []
    const number = convolutions.indexOf(layer)
    const since = model.layers.slice((convolutions[number - 1] ?? -1) + 1, layer)
    const held = layer !== last
    const usual = held && since.some(({ kind }) => kind === 'relu') ? AFTER_RELU : 1
    return [
      {
        ...{ name, offset, size, filters: shape[3], held, centred: held && layer !== first },
        rate: layer === last ? lastRate : layer === first ? firstRate : 1,
        scale: scales?.[number] ?? usual,
      },
    ]
  })
}
