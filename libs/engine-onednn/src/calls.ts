import koffi, { type LibraryHandle } from 'koffi'
import { ConvoyError } from '@convoy/errors'
import { slides, type Shape, type Sliding } from '@convoy/model'

/**
 * oneDNN's C functions under one roof: `calls2` and `calls3` give the same `Calls` for versions 2.x and 3.x. Only this
 * file and library.ts know which version is loaded.
 *
 * Sources: oneDNN's developer guide and dnnl.h of 2.6 and 3.2; "Transition from v2.x to v3.x" lists what differs. In 2.x
 * a memory descriptor is a struct that the caller owns and a primitive is described in two calls; in 3.x a descriptor is
 * an opaque handle and one call does it.
 */

/** A native pointer. */
export type Handle = bigint

export type DataType = 'float32' | 'bf16' | 'uint8'

/** A memory descriptor: logical shape, element type and layout. */
export interface Description {
  readonly handle: Handle
  /** What must stay reachable while the handle is in use, where JavaScript owns the memory. */
  readonly owner?: Uint8Array
}

/** How a kernel or pooling window moves: all pairs are [height, width]. */
export interface WindowGeometry {
  readonly size: readonly [number, number]
  readonly stride: readonly [number, number]
  /** Zeros before and after. */
  readonly before: readonly [number, number]
  readonly after: readonly [number, number]
}

/** A window on an input of this [height, width, …]. */
export function geometry(window: Sliding, input: Shape): WindowGeometry {
  const [rows, columns] = slides(input, window)
  return {
    size: window.size,
    stride: window.stride,
    before: [rows.before, columns.before],
    after: [rows.after, columns.after],
  }
}

/** What is done to a result before it is rounded and stored. */
export type PostOperation = { readonly kind: 'relu' } | { readonly kind: 'scale'; readonly by: number }

export type PoolingAlgorithm = 'max' | 'averageWithPadding' | 'averageWithoutPadding'

/** Which descriptor of a primitive to ask for; the numbers are `dnnl_query_t`'s. */
export const Query = {
  source: 129,
  diffSource: 130,
  weights: 131,
  diffWeights: 132,
  destination: 133,
  diffDestination: 134,
  workspace: 135,
  scratchpad: 136,
} as const

/** Execution arguments: `DNNL_ARG_*`. */
export const Argument = {
  source: 1,
  source1: 2,
  destination: 17,
  weights: 33,
  bias: 41,
  workspace: 64,
  scratchpad: 80,
  diffSource: 129,
  diffDestination: 145,
  diffWeights: 161,
  diffBias: 169,
} as const

/** Functions that make something throw E_ENGINE with oneDNN's status in words; what they make is the caller's to destroy. */
export interface Calls {
  readonly createEngine: () => Handle
  readonly destroyEngine: (engine: Handle) => void
  readonly createStream: (engine: Handle) => Handle
  readonly destroyStream: (stream: Handle) => void
  /** @param strides In elements, one a dimension, or `any` to let a primitive choose its layout. */
  readonly describe: (
    dims: readonly number[],
    type: DataType,
    strides: readonly number[] | 'any',
  ) => Description
  readonly forget: (description: Description) => void
  readonly bytes: (description: Description) => number
  readonly equal: (a: Description, b: Description) => boolean
  readonly createMemory: (description: Description, engine: Handle, address: bigint) => Handle
  readonly moveMemory: (memory: Handle, address: bigint) => void
  readonly destroyMemory: (memory: Handle) => void
  /** Attributes with the scratchpad given by the caller, and post-operations. */
  readonly createAttributes: (operations: readonly PostOperation[]) => Handle
  readonly destroyAttributes: (attributes: Handle) => void
  /** The descriptor a primitive descriptor chose; it lives as long as that. */
  readonly query: (primitiveDescriptor: Handle, what: number) => Description
  /** The name of the implementation that oneDNN picked. */
  readonly implementation: (primitiveDescriptor: Handle) => string
  readonly destroyPrimitiveDescriptor: (primitiveDescriptor: Handle) => void
  readonly createPrimitive: (primitiveDescriptor: Handle) => Handle
  readonly destroyPrimitive: (primitive: Handle) => void
  /** @param table Address of `count` pairs {int32 argument; pointer memory}. Returns a `dnnl_status_t`. */
  readonly execute: (primitive: Handle, stream: Handle, count: number, table: bigint) => number
  readonly wait: (stream: Handle) => number

  // Each gives a primitive descriptor. `attributes` is 0n for none.
  readonly convolution: (
    engine: Handle,
    attributes: Handle,
    source: Description,
    weights: Description,
    bias: Description,
    destination: Description,
    window: WindowGeometry,
  ) => Handle
  readonly convolutionBackwardData: (
    engine: Handle,
    attributes: Handle,
    forward: Handle,
    source: Description,
    weights: Description,
    destination: Description,
    window: WindowGeometry,
  ) => Handle
  readonly convolutionBackwardWeights: (
    engine: Handle,
    attributes: Handle,
    forward: Handle,
    source: Description,
    weights: Description,
    bias: Description,
    destination: Description,
    window: WindowGeometry,
  ) => Handle
  /** ReLU whose gradient is told from its output, so that it can work in place. */
  readonly relu: (engine: Handle, attributes: Handle, data: Description) => Handle
  readonly reluBackward: (
    engine: Handle,
    attributes: Handle,
    forward: Handle,
    data: Description,
    gradient: Description,
  ) => Handle
  /** Multiplication by one number. */
  readonly scale: (engine: Handle, attributes: Handle, data: Description, by: number) => Handle
  readonly pool: (
    engine: Handle,
    attributes: Handle,
    algorithm: PoolingAlgorithm,
    source: Description,
    destination: Description,
    window: WindowGeometry,
  ) => Handle
  readonly poolBackward: (
    engine: Handle,
    attributes: Handle,
    forward: Handle,
    algorithm: PoolingAlgorithm,
    source: Description,
    destination: Description,
    window: WindowGeometry,
  ) => Handle
  /** Elementwise product. */
  readonly multiply: (
    engine: Handle,
    attributes: Handle,
    a: Description,
    b: Description,
    destination: Description,
  ) => Handle
  readonly matmul: (
    engine: Handle,
    attributes: Handle,
    a: Description,
    b: Description,
    c: Description,
  ) => Handle
  readonly reorder: (engine: Handle, attributes: Handle, from: Description, to: Description) => Handle
}

const statuses = [
  'success',
  'out of memory',
  'invalid arguments',
  'unimplemented',
  'no more implementations',
  'runtime error',
  'not required',
]

/** Throws E_ENGINE unless `status` is dnnl_success. */
export function checkStatus(status: number, what: string): void {
  if (status === 0) return
  throw new ConvoyError(
    'E_ENGINE',
    `oneDNN could not ${what}: ${statuses[status] ?? `status ${status}`}`,
    status === 1
      ? 'Use a smaller microBatch, or fewer workers on this machine.'
      : 'Use another engine with --engine, and report the model and the output of `convoy doctor`.',
  )
}

/** Values of dnnl_types.h that 2.x and 3.x share. */
export const Constant = {
  forwardTraining: 64,
  direct: 1,
  reluByDestination: 0x100,
  multiply: 0x1fff1,
  formatAny: 1,
} as const
export const dataTypes: Record<DataType, number> = { bf16: 2, float32: 3, uint8: 6 }
export const poolings: Record<PoolingAlgorithm, number> = {
  max: 0x1ff,
  averageWithPadding: 0x2ff,
  averageWithoutPadding: 0x3ff,
}

const CPU = 1
const IN_ORDER = 1
const USER_SCRATCHPAD = 1
const IMPLEMENTATION = 8

/** Numbers as C's `dnnl_dims_t`. */
export function int64(values: readonly number[]): BigInt64Array {
  return BigInt64Array.from(values, (n) => BigInt(n))
}

type Call = (...args: unknown[]) => number

/**
 * Declares a function that returns a status. In `takes`, `p` is a pointer, `o` the address of a handle that is received, `d`
 * dimensions, `i` int, `f` float and `z` size_t.
 */
export type Declare = (name: string, takes: string) => Call

/** Means to declare a library's functions. */
export function declarer(library: LibraryHandle): Declare {
  const kinds: Record<string, string> = { p: 'void *', d: 'int64_t *', i: 'int', f: 'float', z: 'size_t' }
  return (name, takes) => {
    const parameters = [...takes].map((kind) => (kind === 'o' ? koffi.out('void **') : kinds[kind]))
    return library.func(`dnnl_${name}`, 'int', parameters)
  }
}

/** Calls a function whose first argument receives a handle. Throws E_ENGINE where it fails. */
export function make(call: Call, what: string, ...args: unknown[]): Handle {
  const out: [Handle | null] = [null]
  checkStatus(call(out, ...args), what)
  return out[0]!
}

/** Makes attributes with post-operations, which 2.x and 3.x append differently. */
export function attributeMaker(
  declare: Declare,
  append: (list: Handle, algorithm: PostOperation['kind'], alpha: number) => number,
): Calls['createAttributes'] {
  const attributesCreate = declare('primitive_attr_create', 'o')
  const setScratchpad = declare('primitive_attr_set_scratchpad_mode', 'pi')
  const setPostOps = declare('primitive_attr_set_post_ops', 'pp')
  const postOpsCreate = declare('post_ops_create', 'o')
  const postOpsDestroy = declare('post_ops_destroy', 'p')
  return (operations) => {
    const attributes = make(attributesCreate, 'create attributes')
    checkStatus(setScratchpad(attributes, USER_SCRATCHPAD), 'set the scratchpad mode')
    if (operations.length > 0) {
      const list = make(postOpsCreate, 'create post-operations')
      for (const operation of operations) {
        const alpha = operation.kind === 'scale' ? operation.by : 0
        checkStatus(append(list, operation.kind, alpha), `fuse ${operation.kind}`)
      }
      checkStatus(setPostOps(attributes, list), 'set post-operations')
      postOpsDestroy(list)
    }
    return attributes
  }
}

/** The calls that 2.x and 3.x have in common. */
export function sharedCalls(library: LibraryHandle, declare: Declare) {
  const destroyer = (name: string) => {
    const call = declare(name, 'p')
    return (handle: Handle): void => void call(handle)
  }

  const createEngine = declare('engine_create', 'oiz')
  const createStream = declare('stream_create', 'opi')
  const memoryBytes = library.func('dnnl_memory_desc_get_size', 'size_t', ['void *'])
  const memoryEqual = declare('memory_desc_equal', 'pp')
  const memoryCreate = library.func('dnnl_memory_create', 'int', [
    koffi.out('void **'),
    'void *',
    'void *',
    'uintptr_t',
  ])
  const setHandle = library.func('dnnl_memory_set_data_handle', 'int', ['void *', 'uintptr_t'])
  const queryMemory = library.func('dnnl_primitive_desc_query_md', 'void *', ['void *', 'int', 'int'])
  const queryText = library.func('dnnl_primitive_desc_query', 'int', [
    'void *',
    'int',
    'int',
    koffi.out('const char **'),
  ])
  const primitiveCreate = declare('primitive_create', 'op')
  const reorderCreate = declare('reorder_primitive_desc_create', 'oppppp')

  return {
    createEngine: () => make(createEngine, 'create a CPU engine', CPU, 0),
    destroyEngine: destroyer('engine_destroy'),
    createStream: (engine: Handle) => make(createStream, 'create a stream', engine, IN_ORDER),
    destroyStream: destroyer('stream_destroy'),
    bytes: (description: Description) => Number(memoryBytes(description.handle)),
    equal: (a: Description, b: Description) => memoryEqual(a.handle, b.handle) !== 0,
    createMemory: (description: Description, engine: Handle, address: bigint) =>
      make(memoryCreate, 'create a memory object', description.handle, engine, address),
    moveMemory: (memory: Handle, address: bigint) =>
      checkStatus(setHandle(memory, address) as number, 'move a memory object'),
    destroyMemory: destroyer('memory_destroy'),
    destroyAttributes: destroyer('primitive_attr_destroy'),
    query: (descriptor: Handle, what: number): Description => ({
      handle: queryMemory(descriptor, what, 0) as Handle,
    }),
    implementation(descriptor: Handle): string {
      const out: [string | null] = [null]
      queryText(descriptor, IMPLEMENTATION, 0, out)
      return out[0] ?? 'unknown'
    },
    destroyPrimitiveDescriptor: destroyer('primitive_desc_destroy'),
    createPrimitive: (descriptor: Handle) => make(primitiveCreate, 'create a primitive', descriptor),
    destroyPrimitive: destroyer('primitive_destroy'),
    execute: declare('primitive_execute', 'ppip') as Calls['execute'],
    wait: declare('stream_wait', 'p') as Calls['wait'],
    reorder: (engine: Handle, attributes: Handle, from: Description, to: Description) =>
      make(reorderCreate, 'describe a reorder', from.handle, engine, to.handle, engine, attributes),
  }
}
