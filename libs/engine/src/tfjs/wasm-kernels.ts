import * as tf from '@tensorflow/tfjs-core'

/**
 * The gradients of a convolution on the wasm backend, written as its own fast forward convolutions. The backend has no
 * kernel for weight gradients, and its kernel for input gradients does a tenth of the forward one's speed.
 */

interface Geometry {
  readonly strides: number | [number, number]
  readonly pad: 'same' | 'valid' | number
}

/** Registers both gradients; does nothing the second time. */
export function registerWasmKernels(): void {
  if (tf.getKernel('Conv2DBackpropFilter', 'wasm')) return
  tf.registerKernel({
    kernelName: 'Conv2DBackpropFilter',
    backendName: 'wasm',
    kernelFunc: ({ inputs, attrs }) => {
      const { x, dy } = inputs as { x: tf.TensorInfo; dy: tf.TensorInfo }
      const { filterShape, ...geometry } = attrs as unknown as Geometry & { filterShape: Shape4 }
      return weightGradient(wrap(x), wrap(dy), filterShape, geometry)
    },
  })
  tf.unregisterKernel('Conv2DBackpropInput', 'wasm')
  tf.registerKernel({
    kernelName: 'Conv2DBackpropInput',
    backendName: 'wasm',
    kernelFunc: ({ inputs, attrs }) => {
      const { dy, filter } = inputs as { dy: tf.TensorInfo; filter: tf.TensorInfo }
      const { inputShape, ...geometry } = attrs as unknown as Geometry & { inputShape: Shape4 }
      return inputGradient(wrap(dy), wrap(filter), inputShape, geometry)
    },
  })
}

type Shape4 = [number, number, number, number]

/** Kernels are handed tensors, though their type promises less. */
const wrap = (info: tf.TensorInfo) => info as tf.Tensor4D

/** Zeros before and after, and the output size, along both dimensions. */
function slides(input: Shape4, kernel: readonly number[], { strides, pad }: Geometry) {
  const info = tf.backend_util.computeConv2DInfo(input, [kernel[0], kernel[1], input[3], 1], strides, 1, pad)
  const { top, bottom, left, right } = info.padInfo
  return {
    pads: [
      [top, bottom],
      [left, right],
    ],
    strides: [info.strideHeight, info.strideWidth] as [number, number],
  }
}

/**
 * dW[a, b, i, o] = Σ over images and places of x[n, s·y + a, s·x + b, i] · dy[n, y, x, o].
 *
 * With channels and images changing places that is a convolution: of x [i, h, w, n] with the kernel dy [y, x, n, o],
 * dilated by the stride.
 */
function weightGradient(x: tf.Tensor4D, dy: tf.Tensor4D, shape: Shape4, geometry: Geometry): tf.Tensor4D {
  return tf.tidy(() => {
    const [height, width, channels, filters] = shape
    const { pads, strides } = slides(x.shape, shape, geometry)
    const moved = tf.transpose(tf.pad(x, [[0, 0], ...(pads as [number, number][]), [0, 0]]), [3, 1, 2, 0])
    const kernel = tf.transpose(dy, [1, 2, 0, 3])
    const sums = tf.conv2d(moved, kernel, 1, 'valid', 'NHWC', strides)
    // A last row or column that no window reached adds places to the result that belong to no weight.
    return tf.transpose(tf.slice(sums, [0, 0, 0, 0], [channels, height, width, filters]), [1, 2, 0, 3])
  })
}

/**
 * The gradient by the input. For stride 1 it is a convolution of dy with the flipped kernel, its channels exchanged.
 * For a larger stride s it is s·s such convolutions, one for each place of a pixel within the s×s blocks of the input,
 * each with the part of the kernel that reaches that place; they are done as one, with s·s times the filters, whose
 * results are then laid out in blocks (depthToSpace).
 */
function inputGradient(dy: tf.Tensor4D, filter: tf.Tensor4D, inputShape: Shape4, geometry: Geometry): tf.Tensor4D {
  return tf.tidy(() => {
    const [, height, width, channels] = inputShape
    const [rows, columns, , filters] = filter.shape
    const { pads, strides } = slides(inputShape, filter.shape, geometry)
    const flipped = tf.transpose(tf.reverse(filter, [0, 1]), [0, 1, 3, 2])
    if (strides[0] === 1 && strides[1] === 1) {
      const around = [
        [rows - 1 - pads[0][0], rows - 1 - pads[0][1]],
        [columns - 1 - pads[1][0], columns - 1 - pads[1][1]],
      ] as [number, number][]
      const padded = tf.pad(dy, [[0, 0], ...around.map(([a, b]) => [Math.max(a, 0), Math.max(b, 0)] as [number, number]), [0, 0]])
      // A kernel smaller than its padding sees rows that no pixel had a part in.
      const cut = tf.slice(
        padded,
        [0, Math.max(0, -around[0][0]), Math.max(0, -around[1][0]), 0],
        [dy.shape[0], height + rows - 1, width + columns - 1, filters],
      )
      return tf.conv2d(cut, flipped, 1, 'valid')
    }
    if (strides[0] !== strides[1]) return inputGradientByStuffing(dy, flipped, inputShape, pads, strides)

    const s = strides[0]
    // Along one dimension: input pixel p = s·q + r is reached by taps t with (p + before - t) divisible by s, from
    // output (p + before - t) / s = q + (r + before - t) / s.
    const reach = (taps: number, before: number) => {
      let least = Infinity
      let most = -Infinity
      for (let r = 0; r < s; r++) {
        for (let t = 0; t < taps; t++) {
          const offset = (r + before - t) / s
          if (!Number.isInteger(offset)) continue
          least = Math.min(least, offset)
          most = Math.max(most, offset)
        }
      }
      return [least, most]
    }
    const [top, bottom] = reach(rows, pads[0][0])
    const [left, right] = reach(columns, pads[1][0])
    const kernels: tf.Tensor4D[] = []
    const zero = tf.zeros([1, 1, filters, channels]) as tf.Tensor4D
    const tap = (r: number, offset: number, before: number, taps: number) => {
      const t = r + before - s * offset
      return t >= 0 && t < taps ? t : undefined
    }
    const swapped = tf.transpose(filter, [0, 1, 3, 2])
    for (let r = 0; r < s; r++) {
      for (let c = 0; c < s; c++) {
        const lines: tf.Tensor4D[] = []
        for (let dyRow = top; dyRow <= bottom; dyRow++) {
          const cells: tf.Tensor4D[] = []
          for (let dyColumn = left; dyColumn <= right; dyColumn++) {
            const a = tap(r, dyRow, pads[0][0], rows)
            const b = tap(c, dyColumn, pads[1][0], columns)
            cells.push(
              a === undefined || b === undefined
                ? zero
                : tf.slice(swapped, [a, b, 0, 0], [1, 1, filters, channels]),
            )
          }
          lines.push(tf.concat(cells, 1))
        }
        kernels.push(tf.concat(lines, 0))
      }
    }
    // Blocks of s×s pixels that cover the input; dy is laid out so that block q sees dy from q + top to q + bottom.
    const blockRows = Math.ceil(height / s)
    const blockColumns = Math.ceil(width / s)
    const seen = window(dy, top, blockRows + bottom - top, left, blockColumns + right - left)
    const blocks = tf.depthToSpace(tf.conv2d(seen, tf.concat(kernels, 3), 1, 'valid'), s)
    return tf.slice(blocks, [0, 0, 0, 0], inputShape)
  })
}

/** Rows [top, top + rows) and columns [left, left + columns) of images, zeros where there are none. */
function window(images: tf.Tensor4D, top: number, rows: number, left: number, columns: number): tf.Tensor4D {
  const [count, height, width, channels] = images.shape
  const padded = tf.pad(images, [
    [0, 0],
    [Math.max(0, -top), Math.max(0, top + rows - height)],
    [Math.max(0, -left), Math.max(0, left + columns - width)],
    [0, 0],
  ])
  return tf.slice(padded, [0, Math.max(0, top), Math.max(0, left), 0], [count, rows, columns, channels])
}

/** The general form for strides that differ: dy with zeros between its places, then a convolution of stride 1. */
function inputGradientByStuffing(
  dy: tf.Tensor4D,
  flipped: tf.Tensor4D,
  inputShape: Shape4,
  pads: readonly (readonly number[])[],
  strides: readonly [number, number],
): tf.Tensor4D {
  const [count, height, width] = inputShape
  const [rows, columns] = flipped.shape
  const [, outRows, outColumns, filters] = dy.shape
  const spread = tf.reshape(
    tf.pad(tf.reshape(dy, [count, outRows, 1, outColumns, 1, filters]), [
      [0, 0],
      [0, 0],
      [0, strides[0] - 1],
      [0, 0],
      [0, strides[1] - 1],
      [0, 0],
    ]),
    [count, outRows * strides[0], outColumns * strides[1], filters],
  ) as tf.Tensor4D
  const top = pads[0][0] - (rows - 1)
  const left = pads[1][0] - (columns - 1)
  return tf.conv2d(window(spread, top, height + rows - 1, left, width + columns - 1), flipped, 1, 'valid')
}
