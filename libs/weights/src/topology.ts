import { ConvoyError } from '@convoy/errors'
import type { LayerSpec, ModelSpec, Padding } from '@convoy/model'
import { z } from 'zod'
import type { Described, DescribedLayer } from './file.ts'

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

const pair = z.union([z.number().transform((n) => [n, n]), z.array(z.number())]).optional()
const layerConfig = z.object({
  class_name: z.string(),
  config: z.union([
    z.array(z.unknown()),
    z.looseObject({
      name: z.string().optional(),
      layers: z.array(z.unknown()).optional(),
      activation: z.unknown().optional(),
      epsilon: z.number().optional(),
      padding: z.unknown().optional(),
      border_mode: z.string().optional(),
      kernel_size: pair,
      pool_size: pair,
      strides: pair,
      subsample: pair,
      nb_row: z.number().optional(),
      nb_col: z.number().optional(),
    }),
  ]),
})

const poolings: Record<string, string> = { MaxPooling2D: 'maxPool', AveragePooling2D: 'averagePool' }
/** Layers that leave trained numbers as they are, and a global average, behind which a dense layer is what it is before. */
const silent =
  /^(InputLayer|Flatten|Reshape|Dropout|SpatialDropout2D|Gaussian\w+|Random\w+|Rescaling|Normalization|GlobalAveragePooling2D|Lambda|Concatenate)$/

/** A window in words. Of one pixel, padding makes no difference; of stride 1 and odd, the same zeros on both sides are `same`. */
function windowText(
  kind: string,
  size: readonly number[],
  stride: readonly number[],
  padding: unknown,
): string {
  const half = JSON.stringify(size.map((n) => [n >> 1, n >> 1]))
  const same = JSON.stringify(padding) === half && stride.every((n) => n === 1)
  const zeros = typeof padding === 'string' ? padding : same ? 'same' : JSON.stringify(padding)
  const pixel = [...size, ...stride].every((n) => n === 1)
  return `${kind} ${size.join('×')} stride ${stride.join('×')}${pixel ? '' : ` ${zeros}`}`
}

/** The layers of a config, those of models in it where these stand. */
function describeLayers(value: unknown, epsilons: Record<string, number>): DescribedLayer[] {
  const parsed = layerConfig.safeParse(value)
  if (!parsed.success) return []
  const { class_name: kind, config } = parsed.data
  const inner = Array.isArray(config) ? config : config.layers
  if (inner) return inner.flatMap((layer) => describeLayers(layer, epsilons))
  if (Array.isArray(config)) return []
  const name = config.name ?? kind
  const { activation = 'linear', strides, subsample, nb_row: rows = 1, nb_col: columns = 1 } = config
  const after = activation === 'linear' || activation === null ? [] : [{ name, what: String(activation) }]
  if (/^Conv(olution)?2D$/.test(kind)) {
    const { kernel_size: size = [rows, columns], padding = config.border_mode ?? 'valid' } = config
    const what = windowText('conv2d', size, strides ?? subsample ?? [1, 1], padding)
    return [{ name, what }, ...after]
  }
  if (kind === 'Dense') return [{ name, what: windowText('conv2d', [1, 1], [1, 1], '') }, ...after]
  if (kind in poolings) {
    const { pool_size: size = [2, 2], padding = config.border_mode ?? 'valid' } = config
    return [{ name, what: windowText(poolings[kind], size, strides ?? size, padding) }]
  }
  if (kind === 'BatchNormalization') {
    if (config.epsilon !== undefined) epsilons[name] = config.epsilon
    return [{ name, what: 'batchNorm' }]
  }
  if (kind === 'Activation') return after
  if (kind === 'ReLU') return [{ name, what: 'relu' }]
  if (kind === 'Softmax') return [{ name, what: 'softmax' }]
  return silent.test(kind) ? [] : [{ name, what: kind }]
}

/** What a config of Keras says of its network; nothing where it is none. */
export function describe(config: unknown): { described?: Described } {
  const whole = (config as { model_config?: unknown } | undefined)?.model_config ?? config
  const epsilons: Record<string, number> = {}
  const layers = describeLayers(whole, epsilons)
  // The head makes probabilities of the logits.
  if (/^(softmax|sigmoid)$/.test(layers.at(-1)?.what ?? '')) layers.pop()
  return layers.length === 0 ? {} : { described: { layers, epsilons } }
}

/** Where a described network first differs from a model, in a sentence; undefined where they compute the same. */
export function difference({ layers }: Described, model: ModelSpec): string | undefined {
  const theirs = layers.filter(({ what }) => what !== 'batchNorm')
  const ours = model.layers.flatMap((layer) => {
    if (layer.kind === 'dropout' || layer.kind === 'globalAveragePool') return []
    if (layer.kind === 'relu') return ['relu']
    const size = layer.kind === 'conv2d' ? layer.kernel : layer.size
    return [windowText(layer.kind, size, layer.stride, layer.padding)]
  })
  const at = Array.from({ length: Math.max(ours.length, theirs.length) }, (_, i) => i).find(
    (i) => theirs[i]?.what !== ours[i],
  )
  if (at === undefined) return undefined
  const has = theirs[at] ? `${theirs[at].what} (${theirs[at].name})` : 'nothing more'
  return `the file describes another network than ${model.name}: ${has} where that has ${ours[at] ?? 'nothing more'}`
}
