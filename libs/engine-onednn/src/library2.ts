import koffi, { type LibraryHandle } from 'koffi'
import {
  commonCalls,
  Constant,
  dataTypes,
  int64,
  poolings,
  type Calls,
  type Description,
  type Handle,
} from './calls.ts'

// Sizes of the structs that 2.x leaves to the caller, with room to spare (696 and 5,976 bytes in 2.6).
const MEMORY_DESCRIPTOR_BYTES = 1024
const OPERATION_DESCRIPTOR_BYTES = 8192

const RELU = 0x1f
const LINEAR = 0x7f

/** The calls of oneDNN 2.x: descriptors are structs in buffers of ours. */
export function calls2(library: LibraryHandle): Calls {
  const { declare, make, createAttributes, shared } = commonCalls(library)
  const byStrides = declare('memory_desc_init_by_strides', 'pidid')
  const byTag = declare('memory_desc_init_by_tag', 'pidii')
  const appendEltwise = declare('post_ops_append_eltwise', 'pfiff')
  const create = declare('primitive_desc_create', 'opppp')
  const convolution = declare('convolution_forward_desc_init', 'piippppddd')
  const convolutionData = declare('convolution_backward_data_desc_init', 'pipppddd')
  const convolutionWeights = declare('convolution_backward_weights_desc_init', 'pippppddd')
  const eltwise = declare('eltwise_forward_desc_init', 'piipff')
  const eltwiseBackward = declare('eltwise_backward_desc_init', 'pippff')
  const pooling = declare('pooling_forward_desc_init', 'piippdddd')
  const poolingBackward = declare('pooling_backward_desc_init', 'pippdddd')
  const binary = declare('binary_desc_init', 'pippp')
  const product = declare('matmul_desc_init', 'ppppp')

  /** Fills an operation descriptor and makes a primitive descriptor of it. */
  const describe = (
    what: string,
    engine: Handle,
    attributes: Handle,
    hint: Handle,
    init: (...args: unknown[]) => number,
    ...args: unknown[]
  ): Handle => {
    const operation = new Uint8Array(OPERATION_DESCRIPTOR_BYTES)
    const status = init(operation, ...args)
    if (status !== 0) return make(() => status, `describe ${what}`)
    return make(create, `find an implementation of ${what}`, operation, attributes, engine, hint)
  }

  return {
    ...shared,
    describe(dims, type, strides): Description {
      const owner = new Uint8Array(MEMORY_DESCRIPTOR_BYTES)
      const handle = koffi.address(owner)
      const status =
        strides === 'any'
          ? byTag(owner, dims.length, int64(dims), dataTypes[type], Constant.formatAny)
          : byStrides(owner, dims.length, int64(dims), dataTypes[type], int64(strides))
      if (status !== 0) make(() => status, 'describe a tensor')
      return { handle, owner }
    },
    forget: () => undefined,
    createAttributes: (operations) =>
      createAttributes(operations, (list, kind, alpha) =>
        appendEltwise(list, 1, kind === 'relu' ? RELU : LINEAR, alpha, 0),
      ),
    convolution: (engine, attributes, source, weights, bias, destination, window) =>
      describe(
        'a convolution',
        engine,
        attributes,
        0n,
        convolution,
        Constant.forwardTraining,
        Constant.direct,
        source.handle,
        weights.handle,
        bias.handle,
        destination.handle,
        int64(window.stride),
        int64(window.before),
        int64(window.after),
      ),
    convolutionBackwardData: (engine, attributes, forward, source, weights, destination, window) =>
      describe(
        'the input gradient of a convolution',
        engine,
        attributes,
        forward,
        convolutionData,
        Constant.direct,
        source.handle,
        weights.handle,
        destination.handle,
        int64(window.stride),
        int64(window.before),
        int64(window.after),
      ),
    convolutionBackwardWeights: (engine, attributes, forward, source, weights, bias, destination, window) =>
      describe(
        'the weight gradient of a convolution',
        engine,
        attributes,
        forward,
        convolutionWeights,
        Constant.direct,
        source.handle,
        weights.handle,
        bias.handle,
        destination.handle,
        int64(window.stride),
        int64(window.before),
        int64(window.after),
      ),
    relu: (engine, attributes, data) =>
      describe(
        'ReLU',
        engine,
        attributes,
        0n,
        eltwise,
        Constant.forwardTraining,
        Constant.reluByDestination,
        data.handle,
        0,
        0,
      ),
    reluBackward: (engine, attributes, forward, data, gradient) =>
      describe(
        'the gradient of ReLU',
        engine,
        attributes,
        forward,
        eltwiseBackward,
        Constant.reluByDestination,
        gradient.handle,
        data.handle,
        0,
        0,
      ),
    scale: (engine, attributes, data, by) =>
      describe(
        'a scaling',
        engine,
        attributes,
        0n,
        eltwise,
        Constant.forwardTraining,
        LINEAR,
        data.handle,
        by,
        0,
      ),
    pool: (engine, attributes, algorithm, source, destination, window) =>
      describe(
        'a pooling',
        engine,
        attributes,
        0n,
        pooling,
        Constant.forwardTraining,
        poolings[algorithm],
        source.handle,
        destination.handle,
        int64(window.stride),
        int64(window.size),
        int64(window.before),
        int64(window.after),
      ),
    poolBackward: (engine, attributes, forward, algorithm, source, destination, window) =>
      describe(
        'the gradient of a pooling',
        engine,
        attributes,
        forward,
        poolingBackward,
        poolings[algorithm],
        source.handle,
        destination.handle,
        int64(window.stride),
        int64(window.size),
        int64(window.before),
        int64(window.after),
      ),
    multiply: (engine, attributes, a, b, destination) =>
      describe(
        'a product',
        engine,
        attributes,
        0n,
        binary,
        Constant.multiply,
        a.handle,
        b.handle,
        destination.handle,
      ),
    matmul: (engine, attributes, a, b, c) =>
      describe('a matrix product', engine, attributes, 0n, product, a.handle, b.handle, 0n, c.handle),
  }
}
