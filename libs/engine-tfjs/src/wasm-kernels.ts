import * as tf from '@tensorflow/tfjs-core'
import type { BackendWasm } from '@tensorflow/tfjs-backend-wasm'

/**
 * The gradients of a convolution and of max-pooling on the wasm backend. Convolutions' are done by its fast forward
 * convolution (XNNPACK). The backend has no kernel for weight gradients, and its kernel for input gradients does a tenth of the forward one's speed.
 *
 * Both lay their operands out anew, straight in wasm memory, which takes a few per cent of the time: the backend's
 * kernels for transposing, reversing, padding and slicing took a third.
 */

/**
 * Places of dy (images × rows × columns) that one convolution of a weight gradient sums over, at most, unless one image
 * has more: as many as leave its operand in the second-level cache. Fixed, since it decides the order of additions.
 */
const PLACES = 4096

interface Geometry {
  readonly strides: number | [number, number]
  readonly pad: 'same' | 'valid' | number
  readonly dataFormat?: 'NHWC' | 'NCHW'
}
type Shape4 = [number, number, number, number]
interface PoolGeometry {
  readonly filterSize: number | [number, number]
  readonly strides: number | [number, number]
  readonly pad: 'same' | 'valid' | number
}
interface KernelArguments {
  readonly inputs: Record<string, tf.TensorInfo>
  readonly attrs: unknown
  readonly backend: unknown
}

/** Registers the gradients in place of the backend's; does nothing the second time. */
export function registerWasmKernels(): void {
  if (tf.getKernel('Conv2DBackpropFilter', 'wasm')) return
  const register = (kernelName: string, kernelFunc: (kernel: KernelArguments) => tf.TensorInfo) => {
    if (tf.getKernel(kernelName, 'wasm')) tf.unregisterKernel(kernelName, 'wasm')
    tf.registerKernel({ kernelName, backendName: 'wasm', kernelFunc: kernelFunc as unknown as tf.KernelFunc })
  }
  register('Conv2DBackpropFilter', ({ inputs, attrs, backend }) => {
    const { filterShape, ...geometry } = attrs as Geometry & { filterShape: Shape4 }
    return weightGradient(backend as BackendWasm, inputs['x'], inputs['dy'], filterShape, geometry)
  })
  register('Conv2DBackpropInput', ({ inputs, attrs, backend }) => {
    const { inputShape, ...geometry } = attrs as Geometry & { inputShape: Shape4 }
    return inputGradient(backend as BackendWasm, inputs['dy'], inputs['filter'], inputShape, geometry)
  })
  // The backend's own takes no pixel below 0 for the largest of its window.
  register('MaxPoolGrad', ({ inputs, attrs, backend }) =>
    maxPoolGradient(backend as BackendWasm, inputs['input'], inputs['dy'], attrs as PoolGeometry),
  )
  // The backend's own copies the values.
  register('Identity', ({ inputs: { x }, backend }) => {
    ;(backend as BackendWasm).incRef(x.dataId)
    return { dataId: x.dataId, shape: x.shape, dtype: x.dtype }
  })
}

/** The backend's own convolution. */
function convolve(
  backend: BackendWasm,
  x: tf.TensorInfo,
  filter: tf.TensorInfo,
  pad: 'valid' | [[0, 0], [number, number], [number, number], [0, 0]],
  dilations: [number, number] = [1, 1],
): tf.TensorInfo {
  return tf.getKernel('Conv2D', 'wasm').kernelFunc({
    inputs: { x, filter },
    backend,
    attrs: { strides: [1, 1], pad, dilations, dataFormat: 'NHWC' },
  }) as tf.TensorInfo
}

/** A view of a tensor's values; only good until the next allocation, which may move wasm's memory. */
const view = (backend: BackendWasm, info: tf.TensorInfo) => backend.typedArrayFromHeap(info) as Float32Array

function geometryOf(input: Shape4, kernel: Shape4, { strides, pad, dataFormat }: Geometry) {
  if (dataFormat === 'NCHW') throw new Error('gradients of convolutions are there for NHWC only')
  return tf.backend_util.computeConv2DInfo(input, kernel, strides, 1, pad)
}

/**
 * dW[a, b, i, o] = Σ over images n and places y, x of X[n, s·y + a, s·x + b, i] · dY[n, y, x, o], X being padded.
 *
 * That is a convolution with dY as its kernel: its rows are y, dilated by s; its channels are all (n, x) at once; and
 * what it slides over has X's rows as its rows, all (b, i) as its columns, and as its channels (n, x), so that
 * its output [a, (b, i), o] is dW as it is kept.
 */
function weightGradient(
  backend: BackendWasm,
  x: tf.TensorInfo,
  dy: tf.TensorInfo,
  shape: Shape4,
  geometry: Geometry,
): tf.TensorInfo {
  const info = geometryOf(x.shape as Shape4, shape, geometry)
  const {
    batchSize: count,
    outHeight,
    outWidth,
    inHeight,
    inWidth,
    strideHeight,
    strideWidth,
    padInfo,
  } = info
  const [height, width, channels, filters] = shape
  const each = Math.max(1, Math.min(count, Math.floor(PLACES / (outHeight * outWidth))))
  const rows = (outHeight - 1) * strideHeight + height
  const out = backend.makeOutput(shape, 'float32')

  for (let first = 0; first < count; first += each) {
    const images = Math.min(each, count - first)
    const places = images * outWidth
    const patches = backend.makeOutput([1, rows, width * channels, places], 'float32')
    const kernel = backend.makeOutput([outHeight, 1, places, filters], 'float32')

    const from = view(backend, x)
    const to = view(backend, patches)
    for (let row = 0, at = 0; row < rows; row++) {
      const y = row - padInfo.top
      if (y < 0 || y >= inHeight) {
        to.fill(0, at, at + width * channels * places)
        at += width * channels * places
        continue
      }
      for (let b = 0; b < width; b++) {
        // The columns of dY whose pixel lies inside the image.
        const left = b - padInfo.left
        const low = Math.min(outWidth, Math.max(0, Math.ceil(-left / strideWidth)))
        const high = Math.max(low, Math.min(outWidth, Math.ceil((inWidth - left) / strideWidth)))
        const step = strideWidth * channels
        for (let i = 0; i < channels; i++) {
          for (let n = 0; n < images; n++) {
            let source = (((first + n) * inHeight + y) * inWidth + left + low * strideWidth) * channels + i
            for (let place = 0; place < low; place++) to[at++] = 0
            for (let place = low; place < high; place++, source += step) to[at++] = from[source]
            for (let place = high; place < outWidth; place++) to[at++] = 0
          }
        }
      }
    }
    const gradients = view(backend, dy)
    const rearranged = view(backend, kernel)
    const line = outWidth * filters
    for (let n = 0; n < images; n++) {
      for (let y = 0; y < outHeight; y++) {
        const source = ((first + n) * outHeight + y) * line
        rearranged.set(gradients.subarray(source, source + line), (y * images + n) * line)
      }
    }

    const sums = convolve(backend, patches, kernel, 'valid', [strideHeight, 1])
    const total = view(backend, out)
    const part = view(backend, sums)
    if (first === 0) total.set(part)
    else for (let i = 0; i < total.length; i++) total[i] += part[i]
    for (const { dataId } of [patches, kernel, sums]) backend.disposeData(dataId)
  }
  return out
}

/** Which taps of a kernel reach the pixels p ≡ rest (mod stride) along one dimension, and from where. */
function reach(rest: number, stride: number, taps: number, before: number, input: number, output: number) {
  // Pixel p = stride·q + rest is reached by the taps t with (rest + before - t) divisible by stride, from output
  // q + (rest + before - t) / stride. Ordered by that offset, they are a kernel that slides over dY by single steps.
  const reaching: number[] = []
  for (let t = taps - 1; t >= 0; t--) if ((rest + before - t) % stride === 0) reaching.push(t)
  const pixels = Math.ceil((input - rest) / stride)
  if (reaching.length === 0 || pixels <= 0) return undefined
  const offset = (rest + before - reaching[0]) / stride
  const ahead = Math.max(0, -offset)
  // Places of the result that belong to no pixel: the kernel starts further in than at the first output.
  const skipped = Math.max(0, offset)
  const behind = Math.max(0, skipped + pixels + reaching.length - 1 - ahead - output)
  return { taps: reaching, pixels, skipped, padding: [ahead, behind] as [number, number] }
}

/**
 * The gradient by the input: for stride 1 a convolution of dY with the flipped kernel, its input and output channels
 * exchanged. For a larger stride, one such convolution for each place of a pixel within a block of strides, with the
 * part of the kernel that reaches that place; no work is done on zeros.
 */
function inputGradient(
  backend: BackendWasm,
  dy: tf.TensorInfo,
  filter: tf.TensorInfo,
  inputShape: Shape4,
  geometry: Geometry,
): tf.TensorInfo {
  const info = geometryOf(inputShape, filter.shape as Shape4, geometry)
  const {
    batchSize: count,
    inHeight,
    inWidth,
    outHeight,
    outWidth,
    strideHeight,
    strideWidth,
    padInfo,
  } = info
  const [height, width, channels, filters] = filter.shape as Shape4
  const single = strideHeight === 1 && strideWidth === 1
  let out: tf.TensorInfo | undefined
  if (!single) {
    out = backend.makeOutput(inputShape, 'float32')
    view(backend, out).fill(0)
  }

  for (let r = 0; r < strideHeight; r++) {
    const vertical = reach(r, strideHeight, height, padInfo.top, inHeight, outHeight)
    if (!vertical) continue
    for (let c = 0; c < strideWidth; c++) {
      const horizontal = reach(c, strideWidth, width, padInfo.left, inWidth, outWidth)
      if (!horizontal) continue
      const kernel = backend.makeOutput(
        [vertical.taps.length, horizontal.taps.length, filters, channels],
        'float32',
      )
      const weights = view(backend, filter)
      const chosen = view(backend, kernel)
      let at = 0
      for (const a of vertical.taps) {
        for (const b of horizontal.taps) {
          const tap = (a * width + b) * channels * filters
          for (let o = 0; o < filters; o++) {
            for (let i = 0, source = tap + o; i < channels; i++, source += filters)
              chosen[at++] = weights[source]
          }
        }
      }
      const part = convolve(backend, dy, kernel, [[0, 0], vertical.padding, horizontal.padding, [0, 0]])
      backend.disposeData(kernel.dataId)
      // One convolution gave all pixels, and no more than there are: that is the result.
      if (single) return part

      const [, partRows, partColumns] = part.shape
      const to = view(backend, out!)
      const from = view(backend, part)
      for (let n = 0; n < count; n++) {
        for (let q = 0; q < vertical.pixels; q++) {
          const row = (n * inHeight + q * strideHeight + r) * inWidth
          let source = ((n * partRows + q + vertical.skipped) * partColumns + horizontal.skipped) * channels
          for (let p = 0; p < horizontal.pixels; p++, source += channels) {
            to.set(from.subarray(source, source + channels), (row + p * strideWidth + c) * channels)
          }
        }
      }
      backend.disposeData(part.dataId)
    }
  }
  return out!
}

/** dX of max-pooling: each window's dY goes to its largest pixel, of equal ones to the first, as on the cpu backend. */
function maxPoolGradient(
  backend: BackendWasm,
  x: tf.TensorInfo,
  dy: tf.TensorInfo,
  { filterSize, strides, pad }: PoolGeometry,
): tf.TensorInfo {
  const info = tf.backend_util.computePool2DInfo(x.shape as Shape4, filterSize, strides, 1, pad)
  const { inHeight, inWidth, outHeight, outWidth, inChannels, padInfo } = info
  const out = backend.makeOutput(x.shape, 'float32')
  const [from, gradients, to] = [x, dy, out].map((tensor) => view(backend, tensor))
  to.fill(0)
  let at = 0
  for (let n = 0; n < info.batchSize; n++) {
    for (let y = 0; y < outHeight; y++) {
      const top = y * info.strideHeight - padInfo.top
      const bottom = Math.min(inHeight, top + info.filterHeight)
      for (let place = 0; place < outWidth; place++) {
        const left = place * info.strideWidth - padInfo.left
        const right = Math.min(inWidth, left + info.filterWidth)
        for (let channel = 0; channel < inChannels; channel++) {
          let largest = -Infinity
          let taken = -1
          for (let row = Math.max(0, top); row < bottom; row++) {
            for (let column = Math.max(0, left); column < right; column++) {
              const pixel = ((n * inHeight + row) * inWidth + column) * inChannels + channel
              if (taken >= 0 && !(from[pixel] > largest)) continue
              largest = from[pixel]
              taken = pixel
            }
          }
          to[taken] += gradients[at++]
        }
      }
    }
  }
  return out
}
