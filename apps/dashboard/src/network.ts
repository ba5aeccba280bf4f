import { ImageFiller } from '@convoy/data/browser'
import { buildNetwork, registerWasmKernels, type Network } from '@convoy/engine-tfjs/browser'
import { ConvoyError } from '@convoy/errors'
import { outputShapes, parameterLayout, probabilities, type LayerSpec } from '@convoy/model'
import { setWasmPaths } from '@tensorflow/tfjs-backend-wasm'
import simd from '@tensorflow/tfjs-backend-wasm/dist/tfjs-backend-wasm-simd.wasm?url'
import * as tf from '@tensorflow/tfjs-core'
import { requireFinite } from '@convoy/weights/browser'
import { readWeights, type Weights } from './checkpoint.ts'

// This file and all that it needs is loaded when the classifier is opened, not with the page.

/** Pictures of one size, one behind another. */
export interface Pictures {
  readonly count: number
  readonly height: number
  readonly width: number
  /** 1, or 3 for red, green and blue. */
  readonly channels: number
  /** [count, height, width, channels]. */
  readonly values: Float32Array
}

const names: Readonly<Record<LayerSpec['kind'], string>> = {
  conv2d: '',
  relu: 'ReLU',
  dropout: '',
  maxPool: 'max pooling',
  averagePool: 'average pooling',
  sumPool: 'sum pooling',
  globalAveragePool: 'global average',
}

let started: Promise<void> | undefined

/** Makes TensorFlow.js ready, once. Throws E_ENGINE. */
function start(): Promise<void> {
  started ??= (async () => {
    tf.enableProdMode()
    // It wants an address for each binary; threads are only for pages that share memory, which this one does not.
    tf.env().set('WASM_HAS_MULTITHREAD_SUPPORT', false)
    setWasmPaths({
      'tfjs-backend-wasm.wasm': simd,
      'tfjs-backend-wasm-simd.wasm': simd,
      'tfjs-backend-wasm-threaded-simd.wasm': simd,
    })
    const able = (await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT')) as boolean
    if (!able || !(await tf.setBackend('wasm'))) {
      throw new ConvoyError(
        'E_ENGINE',
        'TensorFlow.js does not start: this browser has no WebAssembly with SIMD',
        'Use a Chrome, Edge, Firefox or Safari of 2023 or later.',
      )
    }
    registerWasmKernels()
  })().catch((error: unknown) => {
    started = undefined
    throw error
  })
  return started
}

/**
 * Reads weights and builds their network in TensorFlow.js.
 *
 * @param file Its name, which says its format.
 * @param beside The files that were given with it. Throws E_ENGINE, E_WEIGHTS_FILE, E_WEIGHTS_FIT, and E_USAGE where it is not
 * known how images are normalised.
 */
export async function openClassifier(
  bytes: Uint8Array,
  file: string,
  beside: readonly File[],
): Promise<Classifier> {
  const weights = await readWeights(bytes, file, beside)
  if (!weights.preprocessing || weights.preprocessing.kind === 'none') {
    throw new ConvoyError(
      'E_USAGE',
      `${file} does not say how images are normalised; whitening (--preprocessing zca) is not kept with the weights`,
      'Train with --preprocessing channels or gcn, or say it with `convoy weights import FILE --data SOURCE`.',
    )
  }
  requireFinite(weights.parameters, weights.model, file)
  await start()
  return new Classifier(weights)
}

/** A network with its weights, and the image that it was shown last. */
export class Classifier {
  readonly weights: Weights
  /** Names of the classes, in the order of the logits. */
  readonly classes: readonly string[]
  /** What maps are kept after: every layer but dropout, and the shape of its output. */
  readonly layers: readonly { readonly name: string; readonly shape: readonly number[] }[]
  readonly #network: Network
  readonly #filler: ImageFiller
  /** The image as the network takes it, [height, width, channels]. */
  readonly #image: Float32Array

  constructor(weights: Weights) {
    const { model, parameters, preprocessing } = weights
    this.weights = weights
    this.classes = weights.classes ?? Array.from({ length: model.classes }, (_, i) => `class ${i}`)
    const shapes = outputShapes(model)
    this.layers = model.layers.flatMap((layer, i) => {
      if (layer.kind === 'dropout') return []
      const before = model.layers.slice(0, i + 1).findLast(({ kind }) => kind === 'conv2d')
      const name = layer.kind === 'conv2d' ? layer.name : names[layer.kind]
      const after = layer.kind === 'relu' && before?.kind === 'conv2d' ? `${before.name}, ${name}` : name
      return [{ name: after, shape: shapes[i] }]
    })
    this.#network = buildNetwork(model)
    tf.tidy(() => {
      parameterLayout(model).views.forEach(({ offset, size, shape }, i) =>
        this.#network.weights[i].assign(
          tf.tensor(parameters.subarray(offset, offset + size), [...shape], 'float32'),
        ),
      )
    })
    this.#filler = new ImageFiller(model.input, preprocessing!, { flip: false, shift: 0 })
    this.#image = new Float32Array(model.input[0] * model.input[1] * model.input[2])
  }

  /** Takes an image, RGB bytes [height, width, 3], and gives the probability of each class. */
  classify(pixels: Uint8Array): number[] {
    const { head, classes } = this.weights.model
    this.#filler.fill(pixels, undefined, this.#image)
    const logits = tf.tidy(() => this.#logits(this.#input()).dataSync())
    return probabilities(head, logits, 0, classes)
  }

  /**
   * How much each pixel would change a class's logit: the largest gradient of the three channels, without its sign
   * (Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2013).
   */
  saliency(label: number): Pictures {
    const [height, width] = this.weights.model.input
    const values = tf.tidy(() => {
      const gradient = tf.grad((image) => tf.sum(tf.slice(this.#logits(image), [0, label], [1, 1])))
      return tf.max(tf.abs(gradient(this.#input())), 3).dataSync() as Float32Array
    })
    return { count: 1, height, width, channels: 1, values }
  }

  /** The output of a layer for the image, one picture a channel. */
  maps(layer: number): Pictures {
    const [height, width, count] = this.layers[layer].shape
    const values = tf.tidy(() => {
      let output = this.#input()
      // The first is the input itself.
      for (const one of this.#network.predicting.layers.slice(1, layer + 2))
        output = one.apply(output) as tf.Tensor4D
      return tf.transpose(output, [0, 3, 1, 2]).dataSync() as Float32Array
    })
    return { count, height, width, channels: 1, values }
  }

  /** The kernels of the first layer, in colour where the image has three channels, else their first channel. */
  filters(): Pictures {
    const { shape, offset } = parameterLayout(this.weights.model).views[0]
    const [height, width, depth, count] = shape
    const channels = depth === 3 ? 3 : 1
    const values = new Float32Array(count * height * width * channels)
    let at = 0
    for (let filter = 0; filter < count; filter++)
      for (let place = 0; place < height * width; place++)
        for (let channel = 0; channel < channels; channel++)
          values[at++] = this.weights.parameters[offset + (place * depth + channel) * count + filter]
    return { count, height, width, channels, values }
  }

  dispose(): void {
    for (const weight of this.#network.weights) weight.dispose()
  }

  #input(): tf.Tensor4D {
    return tf.tensor4d(this.#image, [1, ...this.weights.model.input])
  }

  #logits(image: tf.Tensor): tf.Tensor {
    return this.#network.predicting.apply(image) as tf.Tensor
  }
}
