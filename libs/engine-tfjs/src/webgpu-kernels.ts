import * as tf from '@tensorflow/tfjs-core'
import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu'

/**
 * What WebGPU computes with shaders of ours, since TensorFlow.js has it slow or not at all. Each number is summed by one thread,
 * in a fixed order and without atomics, so the same bits come out each time.
 *
 * - The weight gradient: TensorFlow.js reads two numbers from memory for each multiply-add; here tiles of 32 × 32 are summed from
 *   shared memory, which is a sixteenth of the reading.
 * - The input gradient of single steps, as a forward convolution: that one is tiled too.
 * - Dropout masks, drawn where they are used: 160 KB an image of All-CNN-C that nobody has to draw and send.
 */

type Program = Parameters<WebGPUBackend['runWebGPUProgram']>[0]
type Uniforms = NonNullable<Parameters<WebGPUBackend['runWebGPUProgram']>[3]>
type Shape4 = [number, number, number, number]

interface Geometry {
  readonly strides: number | [number, number]
  readonly pad: 'same' | 'valid' | number
}

/** Threads of a workgroup. */
const THREADS = 64
/** Rows and columns of a tile of a weight gradient, and the places that are summed between two loads. */
const [TILE, DEPTH] = [32, 16]
/** Workgroups of a weight gradient, about: as many as keep a large GPU busy. Fixed, since it decides the order of additions. */
const WORKGROUPS = 1024

/** Registers the gradients of a convolution in place of the backend's; does nothing the second time. */
export function registerWebgpuKernels(): void {
  if (registered) return
  registered = true
  const register = (
    kernelName: string,
    kernelFunc: (
      inputs: Record<string, tf.TensorInfo>,
      attrs: unknown,
      backend: WebGPUBackend,
    ) => tf.TensorInfo,
  ) => {
    tf.unregisterKernel(kernelName, 'webgpu')
    tf.registerKernel({
      kernelName,
      backendName: 'webgpu',
      kernelFunc: ({ inputs, attrs, backend }) =>
        kernelFunc(inputs as Record<string, tf.TensorInfo>, attrs, backend as WebGPUBackend),
    })
  }
  register('Conv2DBackpropFilter', ({ x, dy }, attrs, backend) => {
    const { filterShape, ...geometry } = attrs as Geometry & { filterShape: Shape4 }
    return weightGradient(backend, x, dy, filterShape, geometry)
  })
  const strided = inputGradientOf()
  register('Conv2DBackpropInput', ({ dy, filter }, attrs, backend) => {
    const { inputShape, strides, pad } = attrs as Geometry & { inputShape: Shape4 }
    const info = tf.backend_util.computeConv2DInfo(inputShape, filter.shape as Shape4, strides, 1, pad)
    return info.strideHeight === 1 && info.strideWidth === 1
      ? inputGradient(backend, dy, filter, info)
      : strided({ inputs: { dy, filter }, attrs: attrs as tf.NamedAttrMap, backend })
  })
}

let registered = false

/** The backend's own input gradient, before ours takes its place. */
function inputGradientOf() {
  const { kernelFunc } = tf.getKernel('Conv2DBackpropInput', 'webgpu')
  return (parameters: Parameters<tf.KernelFunc>[0]) => kernelFunc(parameters) as tf.TensorInfo
}

/** A program whose threads each write one number, `main(index)`. */
function each(shape: readonly number[], key: string, variableNames: string[], code: string, uniforms = '') {
  const size = shape.reduce((product, n) => product * n, 1)
  return {
    variableNames,
    uniforms,
    outputShape: [...shape],
    workgroupSize: [THREADS, 1, 1],
    dispatchLayout: { x: shape.map((_, axis) => axis) },
    dispatch: [Math.ceil(size / THREADS), 1, 1],
    size: true,
    shaderKey: `convoy-${key}`,
    getUserCode: () => code,
  } satisfies Program as Program
}

/**
 * dW[k, o] = Σ over places p of patches[p, k] · dY[p, o], where k is (row, column, channel) of the kernel and p is (image, row,
 * column) of dY. A workgroup sums a tile of dW over a slice of the places; the slices are then added, the first ones first.
 */
function weightGradient(
  backend: WebGPUBackend,
  x: tf.TensorInfo,
  dy: tf.TensorInfo,
  shape: Shape4,
  { strides, pad }: Geometry,
): tf.TensorInfo {
  const info = tf.backend_util.computeConv2DInfo(x.shape as Shape4, shape, strides, 1, pad)
  const rows = shape[0] * shape[1] * shape[2]
  const filters = shape[3]
  const places = info.batchSize * info.outHeight * info.outWidth
  const tiles = Math.ceil(rows / TILE) * Math.ceil(filters / TILE)
  const most = Math.min(Math.floor(WORKGROUPS / tiles), Math.ceil(places / (16 * DEPTH)))
  const chunks = Math.ceil(places / DEPTH / Math.max(1, most))
  const slices = Math.ceil(places / (chunks * DEPTH))
  const program: Program = {
    variableNames: ['x', 'dy'],
    uniforms: 'window : vec2<i32>, strides : vec2<i32>, pads : vec2<i32>, chunks : i32,',
    outputShape: [slices, rows, filters],
    workgroupSize: [THREADS, 1, 1],
    dispatchLayout: { x: [2], y: [1], z: [0] },
    dispatch: [Math.ceil(filters / TILE), Math.ceil(rows / TILE), slices],
    shaderKey: 'convoy-weightGradient',
    getUserCode: () => WEIGHT_GRADIENT,
  }
  const uniforms: Uniforms = [
    { type: 'int32', data: [shape[0], shape[1]] },
    { type: 'int32', data: [info.strideHeight, info.strideWidth] },
    { type: 'int32', data: [info.padInfo.top, info.padInfo.left] },
    { type: 'int32', data: [chunks] },
  ]
  const parts = backend.runWebGPUProgram(program, [x, dy], 'float32', uniforms)
  const sum = backend.runWebGPUProgram(each(shape, 'addSlices', ['parts'], ADD_SLICES), [parts], 'float32')
  backend.disposeData(parts.dataId)
  return sum
}

// x is [image, row, column, channel], dy [image, row, column, filter], the result [slice, row of dW, filter].
const WEIGHT_GRADIENT = `
var<workgroup> at : array<vec3<i32>, ${DEPTH}>;
var<workgroup> patches : array<array<f32, ${TILE}>, ${DEPTH}>;
var<workgroup> gradients : array<array<f32, ${TILE}>, ${DEPTH}>;

fn main() {
  let images = uniforms.dyShape.x;
  let rows = uniforms.dyShape.y;
  let columns = uniforms.dyShape.z;
  let channels = uniforms.xShape.w;
  let thread = i32(localIndex);
  let lane = thread % ${TILE};
  let k = i32(workgroupId.y) * ${TILE} + lane;
  let o = i32(workgroupId.x) * ${TILE} + lane;
  let channel = k % channels;
  let across = k / channels % uniforms.window.y;
  let down = k / (channels * uniforms.window.y);
  let top = thread / ${TILE / 4} * 4;
  let left = thread % ${TILE / 4} * 4;
  let slice = i32(workgroupId.z) * uniforms.chunks * ${DEPTH};
  var sums : array<vec4<f32>, 4>;
  for (var chunk = 0; chunk < uniforms.chunks; chunk++) {
    let first = slice + chunk * ${DEPTH};
    if (thread < ${DEPTH}) {
      let place = first + thread;
      let image = select(-1, place / (rows * columns), place < images * rows * columns);
      let corner = vec2<i32>(place / columns % rows, place % columns) * uniforms.strides - uniforms.pads;
      at[thread] = vec3<i32>(image, corner);
    }
    workgroupBarrier();
    for (var j = thread / ${TILE}; j < ${DEPTH}; j += ${THREADS / TILE}) {
      let image = at[j].x;
      let pixel = vec2<i32>(at[j].y + down, at[j].z + across);
      var value = 0.0;
      if (image >= 0 && k < uniforms.outShape.y && all(pixel >= vec2<i32>(0)) && all(pixel < uniforms.xShape.yz)) {
        value = x[((image * uniforms.xShape.y + pixel.x) * uniforms.xShape.z + pixel.y) * channels + channel];
      }
      patches[j][lane] = value;
      var gradient = 0.0;
      if (image >= 0 && o < uniforms.outShape.z) { gradient = dy[(first + j) * uniforms.outShape.z + o]; }
      gradients[j][lane] = gradient;
    }
    workgroupBarrier();
    for (var j = 0; j < ${DEPTH}; j++) {
      let gradient = vec4<f32>(gradients[j][left], gradients[j][left + 1], gradients[j][left + 2], gradients[j][left + 3]);
      sums[0] += patches[j][top] * gradient;
      sums[1] += patches[j][top + 1] * gradient;
      sums[2] += patches[j][top + 2] * gradient;
      sums[3] += patches[j][top + 3] * gradient;
    }
  }
  for (var i = 0; i < 4; i++) {
    let row = i32(workgroupId.y) * ${TILE} + top + i;
    for (var j = 0; j < 4; j++) {
      let column = i32(workgroupId.x) * ${TILE} + left + j;
      if (row < uniforms.outShape.y && column < uniforms.outShape.z) {
        result[(i32(workgroupId.z) * uniforms.outShape.y + row) * uniforms.outShape.z + column] = sums[i][j];
      }
    }
  }
}`

const ADD_SLICES = `
fn main(index : i32) {
  if (index >= uniforms.size) { return; }
  var sum = parts[index];
  for (var slice = 1; slice < uniforms.partsShape.x; slice++) { sum += parts[slice * uniforms.size + index]; }
  result[index] = sum;
}`

// From [row, column, channel, filter] to [row, column, filter, channel], from the last row and column to the first.
const FLIP = `
fn main(index : i32) {
  if (index >= uniforms.size) { return; }
  let channels = uniforms.kernelShape.z;
  let filters = uniforms.kernelShape.w;
  let tap = uniforms.kernelShape.x * uniforms.kernelShape.y - 1 - index / (channels * filters);
  result[index] = kernel[(tap * channels + index % channels) * filters + index / channels % filters];
}`

/** For single steps: a convolution of dY with the flipped kernel, its input and output channels exchanged. */
function inputGradient(
  backend: WebGPUBackend,
  dy: tf.TensorInfo,
  filter: tf.TensorInfo,
  { filterHeight, filterWidth, inHeight, inWidth, outHeight, outWidth, padInfo }: tf.backend_util.Conv2DInfo,
): tf.TensorInfo {
  const [height, width, channels, filters] = filter.shape
  const program = each([height, width, filters, channels], 'flip', ['kernel'], FLIP)
  const flipped = backend.runWebGPUProgram(program, [filter], 'float32')
  const above = filterHeight - 1 - padInfo.top
  const before = filterWidth - 1 - padInfo.left
  // Whatever the far side needs, so that as many pixels come out as went in.
  const below = inHeight + filterHeight - 1 - outHeight - above
  const after = inWidth + filterWidth - 1 - outWidth - before
  const result = tf.getKernel('Conv2D', 'webgpu').kernelFunc({
    inputs: { x: dy, filter: flipped },
    backend,
    attrs: {
      strides: [1, 1],
      pad: [
        [0, 0],
        [above, below],
        [before, after],
        [0, 0],
      ],
      dilations: [1, 1],
      dataFormat: 'NHWC',
    },
  })
  backend.disposeData(flipped.dataId)
  return result as tf.TensorInfo
}

/** How masks.ts of libs/engine draws a layer's mask. */
export interface MaskRule {
  readonly bits: number
  readonly dropped: number
  readonly rate: number
}

/**
 * A dropout mask as masks.ts of libs/engine draws it, by Threefry-2x32-20, times 1 / (1 - rate).
 *
 * @param shape [count, height, width, channels].
 * @param key The two words of the layer's key.
 */
export function drawMask(
  backend: WebGPUBackend,
  shape: readonly number[],
  { bits, dropped, rate }: MaskRule,
  key: Uint32Array,
): tf.Tensor {
  const quarters = [
    [13, 15, 26, 6],
    [17, 29, 16, 24],
  ]
  // Five times four rounds, each followed by two of the three words of the key and the number of it.
  const rounds = Array.from({ length: 5 }, (_, i) => {
    const mixes = quarters[i % 2].map((by) => `x += y; y = ((y << ${by}u) | (y >> ${32 - by}u)) ^ x;`)
    return `${mixes.join(' ')} x += k${(i + 1) % 3}; y += k${(i + 2) % 3} + ${i + 1}u;`
  })
  const each32 = 32 / bits
  const code = `
fn main(index : i32) {
  if (index >= uniforms.size) { return; }
  let k0 = uniforms.key.x;
  let k1 = uniforms.key.y;
  let k2 = 0x1bd11bdau ^ k0 ^ k1;
  let word = u32(index) / ${each32}u;
  var x = word / 2u + k0;
  var y = k1;
  ${rounds.join('\n  ')}
  let drawn = (select(y, x, word % 2u == 0u) >> (u32(index) % ${each32}u * ${bits}u)) & ${2 ** bits - 1}u;
  result[index] = select(0.0, uniforms.scale, drawn >= ${dropped}u);
}`
  const uniforms: Uniforms = [
    { type: 'uint32', data: [key[0], key[1]] },
    { type: 'float32', data: [1 / (1 - rate)] },
  ]
  const program = each(shape, `mask-${bits}-${dropped}`, [], code, 'key : vec2<u32>, scale : f32,')
  const info = backend.runWebGPUProgram(program, [], 'float32', uniforms)
  return tf.engine().makeTensorFromTensorInfo(info)
}
