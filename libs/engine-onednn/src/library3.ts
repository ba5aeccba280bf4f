import type { LibraryHandle } from 'koffi'
import { commonCalls, Constant, dataTypes, int64, poolings, type Calls } from './calls.ts'

const RELU = 0x20
const LINEAR = 0x26

/** In 3.x a dilation of 0 is a dense window. */
const dense = int64([0, 0])

/** The calls of oneDNN 3.x: descriptors are handles. */
export function calls3(library: LibraryHandle): Calls {
  const { declare, make, createAttributes, shared } = commonCalls(library)
  const byStrides = declare('memory_desc_create_with_strides', 'oidid')
  const byTag = declare('memory_desc_create_with_tag', 'oidii')
  const forget = declare('memory_desc_destroy', 'p')
  const appendEltwise = declare('post_ops_append_eltwise', 'piff')
  const convolution = declare('convolution_forward_primitive_desc_create', 'opiippppddddp')
  const convolutionData = declare('convolution_backward_data_primitive_desc_create', 'opipppddddpp')
  const convolutionWeights = declare('convolution_backward_weights_primitive_desc_create', 'opippppddddpp')
  const eltwise = declare('eltwise_forward_primitive_desc_create', 'opiippffp')
  const eltwiseBackward = declare('eltwise_backward_primitive_desc_create', 'opipppffpp')
  const pooling = declare('pooling_forward_primitive_desc_create', 'opiippdddddp')
  const poolingBackward = declare('pooling_backward_primitive_desc_create', 'opippdddddpp')
  const binary = declare('binary_primitive_desc_create', 'opipppp')
  const product = declare('matmul_primitive_desc_create', 'opppppp')

  return {
    ...shared,
    describe: (dims, type, strides) => ({
      handle:
        strides === 'any'
          ? make(byTag, 'describe a tensor', dims.length, int64(dims), dataTypes[type], Constant.formatAny)
          : make(byStrides, 'describe a tensor', dims.length, int64(dims), dataTypes[type], int64(strides)),
    }),
    forget: (description) => void forget(description.handle),
    createAttributes: (operations) =>
      createAttributes(operations, (list, kind, alpha) =>
        appendEltwise(list, kind === 'relu' ? RELU : LINEAR, alpha, 0),
      ),
    convolution: (engine, attributes, source, weights, bias, destination, window) =>
      make(
        convolution,
        'find an implementation of a convolution',
        engine,
        Constant.forwardTraining,
        Constant.direct,
        source.handle,
        weights.handle,
        bias.handle,
        destination.handle,
        int64(window.stride),
        dense,
        int64(window.before),
        int64(window.after),
        attributes,
      ),
    convolutionBackwardData: (engine, attributes, forward, source, weights, destination, window) =>
      make(
        convolutionData,
        'find an implementation of the input gradient of a convolution',
        engine,
        Constant.direct,
        source.handle,
        weights.handle,
        destination.handle,
        int64(window.stride),
        dense,
        int64(window.before),
        int64(window.after),
        forward,
        attributes,
      ),
    convolutionBackwardWeights: (engine, attributes, forward, source, weights, bias, destination, window) =>
      make(
        convolutionWeights,
        'find an implementation of the weight gradient of a convolution',
        engine,
        Constant.direct,
        source.handle,
        weights.handle,
        bias.handle,
        destination.handle,
        int64(window.stride),
        dense,
        int64(window.before),
        int64(window.after),
        forward,
        attributes,
      ),
    relu: (engine, attributes, data) =>
      make(
        eltwise,
        'find an implementation of ReLU',
        engine,
        Constant.forwardTraining,
        Constant.reluByDestination,
        data.handle,
        data.handle,
        0,
        0,
        attributes,
      ),
    reluBackward: (engine, attributes, forward, data, gradient) =>
      make(
        eltwiseBackward,
        'find an implementation of the gradient of ReLU',
        engine,
        Constant.reluByDestination,
        gradient.handle,
        gradient.handle,
        data.handle,
        0,
        0,
        forward,
        attributes,
      ),
    scale: (engine, attributes, data, by) =>
      make(
        eltwise,
        'find an implementation of a scaling',
        engine,
        Constant.forwardTraining,
        LINEAR,
        data.handle,
        data.handle,
        by,
        0,
        attributes,
      ),
    pool: (engine, attributes, algorithm, source, destination, window) =>
      make(
        pooling,
        'find an implementation of a pooling',
        engine,
        Constant.forwardTraining,
        poolings[algorithm],
        source.handle,
        destination.handle,
        int64(window.stride),
        int64(window.size),
        dense,
        int64(window.before),
        int64(window.after),
        attributes,
      ),
    poolBackward: (engine, attributes, forward, algorithm, source, destination, window) =>
      make(
        poolingBackward,
        'find an implementation of the gradient of a pooling',
        engine,
        poolings[algorithm],
        source.handle,
        destination.handle,
        int64(window.stride),
        int64(window.size),
        dense,
        int64(window.before),
        int64(window.after),
        forward,
        attributes,
      ),
    multiply: (engine, attributes, a, b, destination) =>
      make(
        binary,
        'find an implementation of a product',
        engine,
        Constant.multiply,
        a.handle,
        b.handle,
        destination.handle,
        attributes,
      ),
    matmul: (engine, attributes, a, b, c) =>
      make(
        product,
        'find an implementation of a matrix product',
        engine,
        a.handle,
        b.handle,
        0n,
        c.handle,
        attributes,
      ),
  }
}
