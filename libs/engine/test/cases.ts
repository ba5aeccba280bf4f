import type { LayerSpec, ModelSpec, Padding } from '@convoy/model'

const convolve = (
  name: string,
  filters: number,
  kernel: [number, number] = [3, 3],
  stride: [number, number] = [1, 1],
  padding: Padding = 'same',
): LayerSpec => ({ kind: 'conv2d', name, filters, kernel, stride, padding })
const pool = (
  kind: 'maxPool' | 'averagePool' | 'sumPool',
  size: [number, number] = [3, 3],
  padding: Padding = 'same',
): LayerSpec => ({ kind, size, stride: [2, 2], padding })
const relu: LayerSpec = { kind: 'relu' }
const dropout = (rate: number): LayerSpec => ({ kind: 'dropout', rate })
const average: LayerSpec = { kind: 'globalAveragePool' }

// 24 channels: no multiple of 16, so that padded channels are met.
/** Small nets that together have every layer kind, padding and order that an engine must get right. */
export const kinds: Record<string, LayerSpec[]> = {
  'one convolution': [convolve('a', 10), average],
  'a valid convolution': [convolve('a', 24, [3, 3], [1, 1], 'valid'), convolve('b', 10), average],
  'uneven kernels and strides': [convolve('a', 24, [5, 3], [3, 2]), relu, convolve('b', 10, [1, 1]), average],
  "a convolution padded as PyTorch's padding=1": [
    convolve('a', 24),
    relu,
    convolve(
      'b',
      10,
      [3, 3],
      [2, 2],
      [
        [1, 1],
        [1, 1],
      ],
    ),
    average,
  ],
  'convolutions padded by numbers': [
    convolve(
      'a',
      24,
      [5, 3],
      [1, 2],
      [
        [4, 0],
        [2, 1],
      ],
    ),
    relu,
    dropout(0.3),
    convolve(
      'b',
      24,
      [3, 3],
      [1, 1],
      [
        [0, 2],
        [2, 0],
      ],
    ),
    convolve(
      'c',
      10,
      [3, 3],
      [2, 2],
      [
        [2, 0],
        [0, 2],
      ],
    ),
    average,
  ],
  'poolings padded by numbers': [
    convolve('a', 24),
    relu,
    pool(
      'maxPool',
      [3, 3],
      [
        [1, 1],
        [2, 0],
      ],
    ),
    convolve('b', 10),
    pool(
      'averagePool',
      [3, 3],
      [
        [0, 2],
        [1, 1],
      ],
    ),
    pool(
      'sumPool',
      [2, 2],
      [
        [1, 0],
        [1, 1],
      ],
    ),
    average,
  ],
  'a convolution over the whole image': [
    convolve('a', 24, [3, 3], [2, 2]),
    relu,
    convolve('b', 10, [6, 5], [1, 1], 'valid'),
  ],
  'dropout after ReLU': [convolve('a', 24), relu, dropout(0.5), convolve('b', 10), average],
  'dropout before ReLU': [convolve('a', 24), dropout(0.3), relu, convolve('b', 10), average],
  'dropout twice': [convolve('a', 24), relu, dropout(0.3), dropout(0.2), convolve('b', 10), average],
  'dropout of rate 0': [convolve('a', 24), relu, dropout(0), convolve('b', 10), average],
  'dropout on the input': [dropout(0.2), convolve('a', 24), relu, convolve('b', 10), average],
  'max-pooling after ReLU': [convolve('a', 24), relu, pool('maxPool'), convolve('b', 10), average],
  'max-pooling before ReLU': [convolve('a', 24), pool('maxPool'), relu, convolve('b', 10), average],
  'max-pooling without ReLU': [convolve('a', 24), pool('maxPool'), convolve('b', 10), average],
  'max-pooling, valid': [
    convolve('a', 24),
    relu,
    pool('maxPool', [2, 2], 'valid'),
    convolve('b', 10),
    average,
  ],
  'average pooling': [convolve('a', 24), relu, pool('averagePool'), convolve('b', 10), average],
  'average pooling, valid': [
    convolve('a', 24),
    relu,
    pool('averagePool', [2, 2], 'valid'),
    convolve('b', 10),
    average,
  ],
  'sum pooling': [convolve('a', 24), relu, pool('sumPool'), convolve('b', 10), average],
  'layers before the first convolution': [pool('averagePool'), relu, convolve('b', 10), average],
  'layers after the last convolution': [
    convolve('b', 10),
    relu,
    dropout(0.3),
    pool('sumPool', [2, 2]),
    relu,
    average,
  ],
}

/** A model of such layers. */
export const small = (
  name: string,
  layers: LayerSpec[],
  head: ModelSpec['head'] = 'softmax',
  labelSmoothing?: number,
): ModelSpec => ({
  name,
  input: [12, 10, 3],
  layers,
  head,
  classes: 10,
  ...(labelSmoothing === undefined ? {} : { labelSmoothing }),
})

/** Every head, with and without label smoothing. */
export const heads: ModelSpec[] = (['softmax', 'sigmoid'] as const).flatMap((head) =>
  [undefined, 0.2].map((smoothing) =>
    small(
      `the ${head} head${smoothing ? ' with smoothed labels' : ''}`,
      kinds['dropout after ReLU'],
      head,
      smoothing,
    ),
  ),
)
