import {
  inputShapes,
  outputShapes,
  parameterLayout,
  slides,
  windowOf,
  type LayerSpec,
  type ModelSpec,
  type Shape,
} from '@convoy/model'
import * as tf from '@tensorflow/tfjs-core'
import * as layers from '@tensorflow/tfjs-layers'

/**
 * A ModelSpec as TensorFlow.js layer models: one for training, whose dropout masks are inputs, and one for predicting,
 * without dropout. Both share their weights.
 */
export interface Network {
  readonly training: layers.LayersModel
  readonly predicting: layers.LayersModel
  /** The weights in the order of the parameter layout. */
  readonly weights: readonly tf.Variable[]
}

type PoolLayer = Extract<LayerSpec, { kind: 'averagePool' | 'sumPool' }>
type PaddedLayer = Extract<LayerSpec, { kind: 'conv2d' | 'maxPool' }>
/** Numbers before and after, for rows and for columns. */
type Sides = [rows: [number, number], columns: [number, number]]

/** The zeros around the input of a layer. */
function sidesOf(layer: PoolLayer | PaddedLayer, input: Shape): Sides {
  const [rows, columns] = slides(input, windowOf(layer, input))
  return [
    [rows.before, rows.after],
    [columns.before, columns.after],
  ]
}

/** A layer with its own padding in numbers, which no layer of TensorFlow.js has: it pads and leaves the rest to a valid one. */
class Padded extends layers.layers.Layer {
  static className = 'ConvoyPadded'
  readonly #inner: layers.layers.Layer
  readonly #sides: Sides
  readonly #value: number

  /** @param inner The layer, `valid`. */
  constructor(layer: PaddedLayer, input: Shape, inner: layers.layers.Layer) {
    super({})
    this.#inner = inner
    this.#sides = sidesOf(layer, input)
    // The largest of a window is one of the image.
    this.#value = layer.kind === 'maxPool' ? -Infinity : 0
  }

  #padded([count, height, width, channels]: layers.Shape): layers.Shape {
    const [[above, below], [left, right]] = this.#sides
    return [count, above + height! + below, left + width! + right, channels]
  }

  override build(inputShape: layers.Shape | layers.Shape[]): void {
    this.#inner.build(this.#padded(inputShape as layers.Shape))
    // Its own, so that a model finds them.
    this._trainableWeights = this.#inner.trainableWeights
    super.build(inputShape)
  }

  override computeOutputShape(inputShape: layers.Shape): layers.Shape {
    return this.#inner.computeOutputShape(this.#padded(inputShape)) as layers.Shape
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => {
      const input = (Array.isArray(inputs) ? inputs[0] : inputs) as tf.Tensor4D
      const padded = tf.pad(input, [[0, 0], ...this.#sides, [0, 0]], this.#value)
      return this.#inner.call(padded, {}) as tf.Tensor
    })
  }
}

/**
 * Sum and average pooling, from the average over windows of the image with its padding of zeros: times the window's
 * size that is the sum; times that, by how many pixels of the image lie in each window, the average as TensorFlow has
 * it. TensorFlow.js has the latter itself, but its gradient forgets that a window at the border has fewer pixels.
 */
class Pool extends layers.layers.Layer {
  static className = 'ConvoyPool'
  readonly #layer: PoolLayer
  readonly #pads: Sides
  readonly #shape: readonly number[]
  /** [1, height, width, 1]: what each window's average is multiplied with. */
  readonly #factors: Float32Array

  constructor(layer: PoolLayer, input: Shape, output: Shape) {
    super({})
    this.#layer = layer
    this.#shape = output
    this.#pads = sidesOf(layer, input)
    const inside = (axis: number, at: number) => {
      const from = at * layer.stride[axis] - this.#pads[axis][0]
      return Math.min(from + layer.size[axis], input[axis]) - Math.max(from, 0)
    }
    const area = layer.size[0] * layer.size[1]
    this.#factors = Float32Array.from({ length: output[0] * output[1] }, (_, i) => {
      if (layer.kind === 'sumPool') return area
      return area / (inside(0, Math.floor(i / output[1])) * inside(1, i % output[1]))
    })
  }

  override computeOutputShape(inputShape: layers.Shape): layers.Shape {
    return [inputShape[0], ...this.#shape]
  }

  override call(inputs: tf.Tensor | tf.Tensor[]): tf.Tensor {
    return tf.tidy(() => {
      const input = (Array.isArray(inputs) ? inputs[0] : inputs) as tf.Tensor4D
      const padded = tf.pad(input, [[0, 0], ...this.#pads, [0, 0]])
      const average = tf.avgPool(padded, this.#layer.size, this.#layer.stride, 'valid')
      return tf.mul(average, tf.tensor(this.#factors, [1, this.#shape[0], this.#shape[1], 1]))
    })
  }
}

type Symbolic = layers.SymbolicTensor

/** Builds the layer models of a spec. */
export function buildNetwork(model: ModelSpec): Network {
  const inputs = inputShapes(model)
  const outputs = outputShapes(model)
  const image = layers.input({ shape: [...model.input] })
  const masks: Symbolic[] = []
  let training: Symbolic = image
  let predicting: Symbolic = image
  const byName = new Map<string, layers.layers.Layer>()

  model.layers.forEach((layer, i) => {
    if (layer.kind === 'dropout') {
      const mask = layers.input({ shape: [...outputs[i]] })
      masks.push(mask)
      training = layers.layers.multiply().apply([training, mask]) as Symbolic
      return
    }
    const made = makeLayer(layer, inputs[i], outputs[i])
    if (layer.kind === 'conv2d') byName.set(layer.name, made)
    training = made.apply(training) as Symbolic
    predicting = made.apply(predicting) as Symbolic
  })

  const flatten = layers.layers.flatten()
  const network = {
    training: layers.model({ inputs: [image, ...masks], outputs: flatten.apply(training) as Symbolic }),
    predicting: layers.model({ inputs: image, outputs: flatten.apply(predicting) as Symbolic }),
  }
  const weights = parameterLayout(model).views.map(({ name, role }) => {
    const layer = byName.get(name.slice(0, name.lastIndexOf('/')))!
    // LayerVariable keeps its tf.Variable in a field that its type hides.
    return (layer.weights[role === 'kernel' ? 0 : 1] as unknown as { val: tf.Variable }).val
  })
  return { ...network, weights }
}

function makeLayer(
  layer: Exclude<LayerSpec, { kind: 'dropout' }>,
  input: Shape,
  output: Shape,
): layers.layers.Layer {
  if ((layer.kind === 'conv2d' || layer.kind === 'maxPool') && typeof layer.padding !== 'string')
    return new Padded(layer, input, makeLayer({ ...layer, padding: 'valid' }, input, output))
  switch (layer.kind) {
    case 'conv2d':
      return layers.layers.conv2d({
        filters: layer.filters,
        kernelSize: [...layer.kernel],
        strides: [...layer.stride],
        padding: layer.padding as 'same' | 'valid',
        // Parameters always come from outside.
        kernelInitializer: 'zeros',
        biasInitializer: 'zeros',
      })
    case 'relu':
      return layers.layers.reLU()
    case 'maxPool':
      return layers.layers.maxPooling2d({
        poolSize: layer.size,
        strides: layer.stride,
        padding: layer.padding as 'same' | 'valid',
      })
    case 'averagePool':
    case 'sumPool':
      return new Pool(layer, input, output)
    case 'globalAveragePool':
      return layers.layers.averagePooling2d({
        poolSize: [input[0], input[1]],
        strides: [1, 1],
        padding: 'valid',
      })
  }
}
