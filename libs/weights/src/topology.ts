import { ConvoyError } from '@convoy/errors'
import type { LayerSpec, ModelSpec, Padding } from '@convoy/model'

interface KerasLayer {
  readonly class_name: string
  readonly config: Record<string, unknown>
}

const pooling = (
  { size, stride, padding }: Extract<LayerSpec, { kind: 'maxPool' | 'averagePool' }>,
  index: number,
): Record<string, unknown> => {
  if (typeof padding !== 'string') throw lacking(index, 'pooling with its padding in numbers')
  return { pool_size: size, strides: stride, padding, data_format: 'channels_last' }
}

function lacking(index: number, what: string): ConvoyError {
  return new ConvoyError(
    'E_WEIGHTS_FIT',
    `layer ${index + 1} is ${what}, which Keras does not have`,
    'Export to .safetensors or .weights.h5, which hold the weights alone.',
  )
}

/** Zeros around an image, in a layer of their own. */
const zeros = (padding: Padding, index: number): KerasLayer[] =>
  typeof padding === 'string'
    ? []
    : [
        {
          class_name: 'ZeroPadding2D',
          config: { name: `zeros_${index}`, padding, data_format: 'channels_last' },
        },
      ]

function layerOf(layer: LayerSpec, index: number): KerasLayer {
  const name = `${layer.kind.toLowerCase()}_${index}`
  switch (layer.kind) {
    case 'conv2d':
      return {
        class_name: 'Conv2D',
        config: {
          name: layer.name,
          filters: layer.filters,
          kernel_size: layer.kernel,
          strides: layer.stride,
          padding: typeof layer.padding === 'string' ? layer.padding : 'valid',
          data_format: 'channels_last',
          dilation_rate: [1, 1],
          activation: 'linear',
          use_bias: true,
        },
      }
    case 'relu':
      return { class_name: 'Activation', config: { name, activation: 'relu' } }
    case 'dropout':
      return { class_name: 'Dropout', config: { name, rate: layer.rate } }
    case 'maxPool':
      return { class_name: 'MaxPooling2D', config: { name, ...pooling(layer, index) } }
    case 'averagePool':
      return { class_name: 'AveragePooling2D', config: { name, ...pooling(layer, index) } }
    case 'globalAveragePool':
      return {
        class_name: 'GlobalAveragePooling2D',
        config: { name, data_format: 'channels_last' },
      }
    case 'sumPool':
      throw lacking(index, 'sum pooling')
  }
}

/**
 * A model as Keras 2's JSON config of a Sequential, which Keras 3 and TensorFlow.js read too. It ends in the
 * probabilities; the layer before, `logits`, has the numbers that Convoy calls so.
 */
export function topology(model: ModelSpec): KerasLayer {
  const layers = model.layers.flatMap((layer, index) => [
    ...(layer.kind === 'conv2d' ? zeros(layer.padding, index) : []),
    layerOf(layer, index),
  ])
  const all = [
    ...layers,
    ...(model.layers.at(-1)!.kind === 'globalAveragePool'
      ? []
      : [{ class_name: 'Flatten', config: { name: 'flatten' } }]),
    { class_name: 'Activation', config: { name: 'logits', activation: 'linear' } },
    { class_name: 'Activation', config: { name: 'probabilities', activation: model.head } },
  ]
  return {
    class_name: 'Sequential',
    config: {
      name: model.name.replace(/\W/g, '_'),
      layers: [
        // A layer of its own: Keras 3 misreads a shape that is given to the first convolution.
        {
          class_name: 'InputLayer',
          config: {
            name: 'image',
            batch_input_shape: [null, ...model.input],
            dtype: 'float32',
            sparse: false,
          },
        },
        ...all.map(({ class_name, config }) => ({
          class_name,
          config: { ...config, trainable: true, dtype: 'float32' },
        })),
      ],
    },
  }
}
