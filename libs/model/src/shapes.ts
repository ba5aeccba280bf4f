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
 * pads the odd zero after.
 */
export function slide(input: number, window: number, stride: number, padding: Padding): Slide {
  if (padding === 'valid') {
    return { output: Math.ceil((input - window + 1) / stride), before: 0, after: 0 }
  }
  const output = Math.ceil(input / stride)
  const zeros = Math.max(0, (output - 1) * stride + window - input)
  const before = zeros >> 1
  return { output, before, after: zeros - before }
}

function misfit(model: ModelSpec, index: number, layer: LayerSpec, input: Shape): ConvoyError {
  return new ConvoyError(
    'E_MODEL',
    `layer ${index + 1} (${layer.kind}) of ${model.name} does not fit its input of ${input.join('×')}`,
    'Use a smaller window or stride, `same` padding, or a larger input.',
  )
}

/** The output shape of every layer, in order. Throws E_MODEL where a window does not fit. */
export function outputShapes(model: ModelSpec): Shape[] {
  let shape: Shape = model.input
  return model.layers.map((layer, index) => {
    const [height, width, channels] = shape
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
        const size = layer.kind === 'conv2d' ? layer.kernel : layer.size
        const rows = slide(height, size[0], layer.stride[0], layer.padding).output
        const columns = slide(width, size[1], layer.stride[1], layer.padding).output
        if (rows < 1 || columns < 1) throw misfit(model, index, layer, shape)
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
