import { ConvoyError } from '@convoy/errors'
import type { LayerSpec, ModelSpec, Padding, Shape } from './spec.ts'

/** How a window slides along one dimension. */
export interface Slide {
  readonly output: number
  /** Zeros before the first element. */
  readonly before: number
  /** Zeros after the last element. */
  readonly after: number
}

/**
 * The output size and zero padding of a convolution or pooling along one dimension, as TensorFlow has them:
 * `valid` takes only whole windows, ceil((input - window + 1) / stride); `same` gives ceil(input / stride) and
 * pads the odd zero after. Numbers are zeros before and after; of those after, only what windows reach is given, as
 * PyTorch has it too.
 */
export function slide(
  input: number,
  window: number,
  stride: number,
  padding: 'same' | 'valid' | readonly [before: number, after: number],
): Slide {
  if (padding === 'valid') {
    return { output: Math.ceil((input - window + 1) / stride), before: 0, after: 0 }
  }
  if (padding !== 'same') {
    const [before, most] = padding
    const output = Math.floor((before + input + most - window) / stride) + 1
    return { output, before, after: Math.max(0, (output - 1) * stride + window - input - before) }
  }
  const output = Math.ceil(input / stride)
  const zeros = Math.max(0, (output - 1) * stride + window - input)
  const before = zeros >> 1
  return { output, before, after: zeros - before }
}

/** A window that slides over an image; pairs are [height, width]. */
export interface Sliding {
  readonly size: readonly [number, number]
  readonly stride: readonly [number, number]
  readonly padding: Padding
}

/** How a window slides over an image of this [height, width, …], by rows and by columns. */
export function slides(
  input: readonly number[],
  { size, stride, padding }: Sliding,
): [rows: Slide, columns: Slide] {
  const along = (d: 0 | 1) =>
    slide(input[d], size[d], stride[d], typeof padding === 'string' ? padding : padding[d])
  return [along(0), along(1)]
}

/** The window of a layer that has one; a global average is one window over its whole input. */
export function windowOf(
  layer: Extract<LayerSpec, { stride: unknown }> | { readonly kind: 'globalAveragePool' },
  input: readonly number[],
): Sliding {
  if (layer.kind === 'globalAveragePool')
    return { size: [input[0], input[1]], stride: [1, 1], padding: 'valid' }
  const { stride, padding } = layer
  return { size: layer.kind === 'conv2d' ? layer.kernel : layer.size, stride, padding }
}

function misfit(model: ModelSpec, index: number, layer: LayerSpec, input: Shape): ConvoyError {
  return new ConvoyError(
    'E_MODEL',
    `layer ${index + 1} (${layer.kind}) of ${model.name} does not fit its input of ${input.join('×')}`,
    'Use a smaller window or stride, `same` padding, a larger input, or fewer zeros than the window is long.',
  )
}

/** Whether there are so many zeros that a window sees nothing else. */
function seesOnlyZeros({ size, padding }: Sliding): boolean {
  return typeof padding !== 'string' && padding.some((sides, d) => Math.max(...sides) >= size[d])
}

/** The output shape of every layer, in order. Throws E_MODEL where a window does not fit. */
export function outputShapes(model: ModelSpec): Shape[] {
  let shape: Shape = model.input
  return model.layers.map((layer, index) => {
    const channels = shape[2]
    switch (layer.kind) {
      case 'relu':
      case 'dropout':
        break
      case 'globalAveragePool':
        shape = [1, 1, channels]
        break
      case 'conv2d':
      case 'maxPool':
      case 'averagePool':
      case 'sumPool': {
        const window = windowOf(layer, shape)
        const [rows, columns] = slides(shape, window).map(({ output }) => output)
        if (rows < 1 || columns < 1 || seesOnlyZeros(window)) throw misfit(model, index, layer, shape)
        shape = [rows, columns, layer.kind === 'conv2d' ? layer.filters : channels]
        break
      }
    }
    return shape
  })
}

/** The input shape of every layer, in order. */
export function inputShapes(model: ModelSpec): Shape[] {
  return [model.input, ...outputShapes(model).slice(0, -1)]
}

/** The same network for images of another size: its parameters stay where they are, since no layer has one for each place. */
export function resized(model: ModelSpec, size: number): ModelSpec {
  return { ...model, input: [size, size, model.input[2]] }
}

/** How many activations one image has after a layer of this shape. */
export function volume(shape: Shape): number {
  return shape[0] * shape[1] * shape[2]
}

/** Multiply-adds of one image's forward pass, convolutions only. */
export function multiplyAdds(model: ModelSpec): number {
  const inputs = inputShapes(model)
  const outputs = outputShapes(model)
  let sum = 0
  model.layers.forEach((layer, i) => {
    if (layer.kind === 'conv2d') sum += volume(outputs[i]) * layer.kernel[0] * layer.kernel[1] * inputs[i][2]
  })
  return sum
}
