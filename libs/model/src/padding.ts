import type { ModelSpec, Padding } from './spec.ts'

/** The model with another padding of some layers; `padding` gives each window's by its place among the windows. */
function repadded(
  model: ModelSpec,
  padding: (
    size: readonly [number, number],
    stride: readonly [number, number],
    own: Padding,
    at: number,
  ) => Padding,
): ModelSpec {
  let windows = 0
  const layers = model.layers.map((layer) => {
    if (!('stride' in layer)) return layer
    const size = layer.kind === 'conv2d' ? layer.kernel : layer.size
    return { ...layer, padding: padding(size, layer.stride, layer.padding, windows++) }
  })
  return { ...model, layers }
}

/**
 * The model with its `same` paddings as PyTorch's networks have them, `padding=k//2`: as many zeros before as after. That is the same
 * for odd windows of stride 1, which stay `same`; sizes of outputs are the same for all odd windows.
 */
export function symmetricPadding(model: ModelSpec): ModelSpec {
  return repadded(model, (size, stride, own) => {
    if (own !== 'same' || size.some((n) => n % 2 === 0) || stride.every((n) => n === 1)) return own
    const [rows, columns] = size.map((n) => n >> 1)
    return [
      [rows, rows],
      [columns, columns],
    ]
  })
}

/** The model with the paddings of another that has as many windows; else as it is. */
export function paddedLike(model: ModelSpec, other: ModelSpec): ModelSpec {
  const paddings = other.layers.flatMap((layer) => ('stride' in layer ? [layer.padding] : []))
  const windows = model.layers.filter((layer) => 'stride' in layer).length
  return windows === paddings.length ? repadded(model, (...[, , , at]) => paddings[at]) : model
}
