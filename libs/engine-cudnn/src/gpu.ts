import koffi from 'koffi'
import { ConvoyError } from '@convoy/errors'
import { bytesOf, type Argument, type Call, type Choose, type Convolution, type Tensor } from './calls.ts'
import { BLOCK, entries, source } from './kernels.ts'
import {
  checkCudnn,
  checkDriver,
  compileCuda,
  Enum,
  loadCudnn,
  loadDriver,
  loadNvrtc,
  refuseCudnn,
  type Cudnn,
  type Driver,
} from './library.ts'

type Handle = bigint

/** How the passes of a convolution are called, and their deterministic algorithms, best first. */
const passes = {
  forward: {
    algorithms: [
      Enum.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM,
      Enum.CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM,
    ],
    workspace: 'cudnnGetConvolutionForwardWorkspaceSize',
    run: 'cudnnConvolutionForward',
    operands: ['image', 'kernel', 'output'],
  },
  image: {
    algorithms: [Enum.CUDNN_CONVOLUTION_BWD_DATA_ALGO_1],
    workspace: 'cudnnGetConvolutionBackwardDataWorkspaceSize',
    run: 'cudnnConvolutionBackwardData',
    operands: ['kernel', 'output', 'image'],
  },
  kernel: {
    algorithms: [Enum.CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1],
    workspace: 'cudnnGetConvolutionBackwardFilterWorkspaceSize',
    run: 'cudnnConvolutionBackwardFilter',
    operands: ['image', 'output', 'kernel'],
  },
} as const

const ONE = new Float32Array([1])
const ZERO = new Float32Array([0])

/** cuDNN's descriptors of a convolution. They need no GPU. */
export class Descriptors {
  readonly image: Handle
  readonly kernel: Handle
  readonly output: Handle
  readonly convolution: Handle
  readonly #cudnn: Cudnn

  /** Throws E_ENGINE_GPU where cuDNN does not take one. */
  constructor(cudnn: Cudnn, { type, tf32, image, kernel, output, padding, stride }: Convolution) {
    this.#cudnn = cudnn
    const check = (status: number | string, what: string) => checkCudnn(cudnn, status, `describe ${what}`)
    const make = (create: (to: BigUint64Array) => number | string): Handle => {
      const made = new BigUint64Array(1)
      check(create(made), 'anything')
      return made[0]
    }
    const dataType = type === 'bf16' ? Enum.CUDNN_DATA_BFLOAT16 : Enum.CUDNN_DATA_FLOAT
    const images = ([n, h, w, c]: Convolution['image'], what: string) => {
      const descriptor = make(cudnn.cudnnCreateTensorDescriptor)
      check(cudnn.cudnnSetTensor4dDescriptor(descriptor, Enum.CUDNN_TENSOR_NHWC, dataType, n, c, h, w), what)
      return descriptor
    }
    this.image = images(image, 'an image')
    this.output = images(output, 'an output')
    const [filters, height, width, channels] = kernel
    this.kernel = make(cudnn.cudnnCreateFilterDescriptor)
    check(
      cudnn.cudnnSetFilter4dDescriptor(
        ...([this.kernel, dataType, Enum.CUDNN_TENSOR_NHWC, filters, channels, height, width] as const),
      ),
      'a kernel',
    )
    this.convolution = make(cudnn.cudnnCreateConvolutionDescriptor)
    check(
      cudnn.cudnnSetConvolution2dDescriptor(
        ...([this.convolution, ...padding, ...stride, 1, 1] as const),
        Enum.CUDNN_CROSS_CORRELATION,
        Enum.CUDNN_DATA_FLOAT,
      ),
      'a convolution',
    )
    // By default tensor cores multiply, bf16 as it is and float32 as TF32.
    const math = type === 'float32' && !tf32 ? Enum.CUDNN_FMA_MATH : Enum.CUDNN_DEFAULT_MATH
    check(cudnn.cudnnSetConvolutionMathType(this.convolution, math), 'the arithmetic')
  }

  /** The output's [count, height, width, channels] as cuDNN works it out. */
  outputShape(): number[] {
    const [n, c, h, w] = Array.from({ length: 4 }, () => new Int32Array(1))
    checkCudnn(
      this.#cudnn,
      this.#cudnn.cudnnGetConvolution2dForwardOutputDim(
        ...([this.convolution, this.image, this.kernel, n, c, h, w] as const),
      ),
      'tell an output’s shape',
    )
    return [n, h, w, c].map(([value]) => value)
  }

  dispose(): void {
    this.#cudnn.cudnnDestroyConvolutionDescriptor(this.convolution)
    this.#cudnn.cudnnDestroyFilterDescriptor(this.kernel)
    this.#cudnn.cudnnDestroyTensorDescriptor(this.output)
    this.#cudnn.cudnnDestroyTensorDescriptor(this.image)
  }
}

/** One NVIDIA GPU with the kernels loaded. It belongs to the JavaScript thread that made it. */
export class Gpu {
  /** Such as `NVIDIA H200`. */
  readonly name: string
  /** Such as 90: what the GPU's code is compiled for. */
  readonly capability: number
  /** Of the libraries, such as `9.28.0, NVRTC 12.9`: what the bits depend on. */
  readonly version: string
  readonly driver: Driver
  readonly cudnn: Cudnn
  /** Computes. */
  readonly stream: Handle
  /** Bring to the GPU and back, meanwhile. */
  readonly up: Handle
  readonly down: Handle
  readonly handle: Handle
  readonly functions: ReadonlyMap<string, Handle>
  /** False once a list of calls could not be recorded as a graph: then they are made one by one. */
  records = true
  readonly #device: number
  readonly #context: Handle
  readonly #module: Handle

  /**
   * @param ordinal Which GPU, from 0.
   * Throws E_ENGINE_GPU where a library, the driver or that GPU is missing.
   */
  constructor(ordinal: number) {
    const driver = (this.driver = loadDriver())
    const { cudnn, version } = loadCudnn()
    this.cudnn = cudnn
    this.version = `${version}, NVRTC ${loadNvrtc().version}`
    const check = (status: number | string, what: string) => checkDriver(driver, status, what)
    const number = (get: (to: Int32Array) => number | string, what: string) => {
      const value = new Int32Array(1)
      check(get(value), what)
      return value[0]
    }
    const handle = (get: (to: BigUint64Array) => number | string, what: string) => {
      const value = new BigUint64Array(1)
      check(get(value), what)
      return value[0]
    }
    const count = number(driver.cuDeviceGetCount, 'count the GPUs')
    if (ordinal >= count) {
      throw new ConvoyError(
        'E_ENGINE_GPU',
        `there is no GPU ${ordinal}: this machine has ${count}`,
        `Use --device 0${count > 1 ? ` to ${count - 1}` : ''}.`,
      )
    }
    const device = (this.#device = number((to) => driver.cuDeviceGet(to, ordinal), 'open the GPU'))
    const words = new Uint8Array(256)
    check(driver.cuDeviceGetName(words, words.length, device), 'name the GPU')
    this.name = new TextDecoder().decode(words.subarray(0, words.indexOf(0)))
    const [major, minor] = [
      Enum.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
      Enum.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    ].map((attribute) => number((to) => driver.cuDeviceGetAttribute(to, attribute, device), 'ask the GPU'))
    this.capability = 10 * major + minor
    const code = compileCuda(source, `sm_${this.capability}`)
    this.#context = handle((to) => driver.cuDevicePrimaryCtxRetain(to, device), 'use the GPU')
    this.use()
    this.#module = handle((to) => driver.cuModuleLoadData(to, code), 'load the kernels')
    this.functions = new Map(
      [...entries.keys()].map((name) => [
        name,
        handle((to) => driver.cuModuleGetFunction(to, this.#module, name), `find the kernel ${name}`),
      ]),
    )
    const stream = () =>
      handle((to) => driver.cuStreamCreate(to, Enum.CU_STREAM_NON_BLOCKING), 'make a stream')
    this.stream = stream()
    this.up = stream()
    this.down = stream()
    const made = new BigUint64Array(1)
    checkCudnn(cudnn, cudnn.cudnnCreate(made), 'start')
    this.handle = made[0]
    checkCudnn(cudnn, cudnn.cudnnSetStream(this.handle, this.stream), 'take a stream')
  }

  /** Makes this GPU the one that the calling thread's calls are for. */
  use(): void {
    checkDriver(this.driver, this.driver.cuCtxSetCurrent(this.#context), 'use the GPU')
  }

  readonly choose: Choose = (convolution) => {
    this.use()
    const { algorithms, workspace, operands } = passes[convolution.pass]
    const descriptors = new Descriptors(this.cudnn, convolution)
    const [a, b, c] = operands.map((operand) => descriptors[operand])
    const bytes = new BigUint64Array(1)
    let status: number | string = 0
    for (const algorithm of algorithms) {
      status = this.cudnn[workspace](this.handle, a, b, descriptors.convolution, c, algorithm, bytes)
      if (status === 0) {
        descriptors.dispose()
        return { algorithm, workspace: Number(bytes[0]) }
      }
    }
    descriptors.dispose()
    throw refuseCudnn(
      this.cudnn,
      status,
      `find a deterministic algorithm for a convolution (${convolution.pass})`,
    )
  }

  dispose(): void {
    this.use()
    this.cudnn.cudnnDestroy(this.handle)
    for (const stream of [this.stream, this.up, this.down]) this.driver.cuStreamDestroy_v2(stream)
    this.driver.cuModuleUnload(this.#module)
    this.driver.cuDevicePrimaryCtxRelease_v2(this.#device)
  }
}

/** What may be under way at once: while one leaf is computed, the next is brought to the GPU, or an earlier one's gradient read. */
export const LANES = 2

/** Calls made ready for a lane: first run one by one, so that cuDNN loads what it needs, then recorded as a CUDA graph. */
interface Ready {
  readonly commands: readonly (() => void)[]
  graph: Handle
}

/** A way through a session: its own block of inputs on the GPU, and its own memory of the host. */
interface Lane {
  /** 0 where the lane has no inputs. */
  readonly inputs: Handle
  /** Pinned, so that copies need no detour. */
  readonly hosts: Map<Tensor, { readonly address: Handle; readonly view: ArrayBuffer }>
  readonly ready: Map<readonly Call[], Ready>
  /** Events: the inputs are there; all is done. */
  readonly uploaded: Handle
  readonly done: Handle
  busy: boolean
}

/**
 * The memory of a plan on a GPU, and its calls made ready. All that is computed is computed in the order in which it was
 * started, on one stream; each lane's inputs go up on another, and what comes down does on a third.
 */
export class Session {
  readonly #gpu: Gpu
  readonly #base: Handle
  readonly #inputBytes: number
  /** The last one, without inputs, is for new parameters. */
  readonly #lanes: (Lane | undefined)[] = Array.from({ length: LANES + 1 }, () => undefined)
  readonly #events: Handle[] = []
  readonly #descriptors: Descriptors[] = []
  /** Lists that were run: all of cuDNN that they need is loaded. */
  readonly #ran = new Set<readonly Call[]>()
  /** Memory of the kernels' arguments, which must stay reachable. */
  readonly #held: ArrayBuffer[] = []

  /**
   * @param lanes How many with inputs will be used, at most `LANES`.
   * Throws E_ENGINE_GPU where memory runs out.
   */
  constructor(
    gpu: Gpu,
    { bytes, inputBytes }: { readonly bytes: number; readonly inputBytes: number },
    lanes: number,
  ) {
    this.#gpu = gpu
    gpu.use()
    this.#inputBytes = inputBytes
    this.#base = this.#reserve(bytes)
    try {
      for (let lane = 0; lane < lanes; lane++) this.#lane(lane)
    } catch (error) {
      this.dispose()
      throw error
    }
  }

  /** The host's copy of a tensor in a lane. Waits until the lane is free. */
  host(lane: number, tensor: Tensor): ArrayBuffer {
    this.#gpu.use()
    this.finish(lane)
    const made = this.#lane(lane)
    this.#pinned(made, tensor)
    return made.hosts.get(tensor)!.view
  }

  /** Starts with what `host` was given, after all that was started before. Throws E_ENGINE_GPU where a call fails. */
  start(lane: number, { uploads, calls }: { uploads: readonly Tensor[]; calls: readonly Call[] }): void {
    const gpu = this.#gpu
    const { driver, stream, up } = gpu
    gpu.use()
    const made = this.#lane(lane)
    if (uploads.length > 0) {
      for (const tensor of uploads) this.#upload(made, tensor, up)()
      checkDriver(driver, driver.cuEventRecord(made.uploaded, up), 'note the inputs')
      checkDriver(driver, driver.cuStreamWaitEvent(stream, made.uploaded, 0), 'await the inputs')
    }
    let ready = made.ready.get(calls)
    if (!ready) made.ready.set(calls, (ready = { commands: this.#prepareAll(made, calls), graph: 0n }))
    if (ready.graph === 0n && this.#ran.has(calls)) ready.graph = this.#record(ready.commands)
    if (ready.graph !== 0n) checkDriver(driver, driver.cuGraphLaunch(ready.graph, stream), 'start a step')
    else for (const command of ready.commands) command()
    this.#ran.add(calls)
    checkDriver(driver, driver.cuEventRecord(made.done, stream), 'note the end of a step')
    made.busy = true
  }

  /** Waits until what was started in a lane is done. Throws E_ENGINE_GPU where it failed. */
  finish(lane: number): void {
    const made = this.#lanes[lane]
    if (!made?.busy) return
    const { driver } = this.#gpu
    made.busy = false
    checkDriver(driver, driver.cuEventSynchronize(made.done), 'finish a step')
  }

  dispose(): void {
    const { driver, stream, up } = this.#gpu
    this.#gpu.use()
    for (const one of [up, stream]) driver.cuStreamSynchronize(one)
    for (const lane of this.#lanes) {
      if (!lane) continue
      for (const { graph } of lane.ready.values()) if (graph !== 0n) driver.cuGraphExecDestroy(graph)
      for (const { address } of lane.hosts.values()) driver.cuMemFreeHost(address)
      if (lane.inputs !== 0n) driver.cuMemFree_v2(lane.inputs)
    }
    for (const descriptors of this.#descriptors) descriptors.dispose()
    for (const event of this.#events) driver.cuEventDestroy_v2(event)
    driver.cuMemFree_v2(this.#base)
  }

  #reserve(bytes: number): Handle {
    const { driver } = this.#gpu
    const address = new BigUint64Array(1)
    checkDriver(driver, driver.cuMemAlloc_v2(address, bytes), `reserve ${(bytes / 2 ** 20).toFixed(0)} MiB`)
    return address[0]
  }

  #lane(index: number): Lane {
    return (this.#lanes[index] ??= {
      inputs: index < LANES ? this.#reserve(this.#inputBytes) : 0n,
      hosts: new Map(),
      ready: new Map(),
      uploaded: this.#event(),
      done: this.#event(),
      busy: false,
    })
  }

  #event(): Handle {
    const { driver } = this.#gpu
    const made = new BigUint64Array(1)
    checkDriver(driver, driver.cuEventCreate(made, Enum.CU_EVENT_DISABLE_TIMING), 'make an event')
    this.#events.push(made[0])
    return made[0]
  }

  /** Records the commands instead of running them; 0 where that cannot be done. */
  #record(commands: readonly (() => void)[]): Handle {
    const { driver, stream } = this.#gpu
    if (!this.#gpu.records) return 0n
    const graph = new BigUint64Array(1)
    const executable = new BigUint64Array(1)
    let recorded = driver.cuStreamBeginCapture_v2(stream, Enum.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL) === 0
    if (recorded) {
      try {
        for (const command of commands) command()
      } catch {
        // Not all of cuDNN can be recorded. That these calls run is known.
        recorded = false
      }
      recorded = driver.cuStreamEndCapture(stream, graph) === 0 && recorded
    }
    recorded &&= driver.cuGraphInstantiateWithFlags(executable, graph[0], 0) === 0
    if (graph[0] !== 0n) driver.cuGraphDestroy(graph[0])
    this.#gpu.records = recorded
    return executable[0]
  }

  #address(lane: Lane, tensor: Tensor, offset = 0): Handle {
    const base = tensor.input ? lane.inputs : this.#base
    return base + BigInt(tensor.buffer.offset + offset * bytesOf[tensor.type])
  }

  /** The address of the host's memory for a tensor. */
  #pinned(lane: Lane, tensor: Tensor): Handle {
    const known = lane.hosts.get(tensor)
    if (known) return known.address
    const { driver } = this.#gpu
    const address = new BigUint64Array(1)
    const { bytes } = tensor.buffer
    checkDriver(driver, driver.cuMemHostAlloc(address, bytes, 0), `pin ${bytes} bytes`)
    lane.hosts.set(tensor, { address: address[0], view: koffi.view(address[0], bytes) })
    return address[0]
  }

  #upload(lane: Lane, tensor: Tensor, stream: Handle): () => void {
    const { driver } = this.#gpu
    const [from, to] = [this.#pinned(lane, tensor), this.#address(lane, tensor)]
    const { bytes } = tensor.buffer
    return () => checkDriver(driver, driver.cuMemcpyHtoDAsync_v2(to, from, bytes, stream), 'copy to the GPU')
  }

  /** The calls as functions; downloads are waited for at the end. */
  #prepareAll(lane: Lane, calls: readonly Call[]): (() => void)[] {
    const { driver, stream, down } = this.#gpu
    const commands = calls.map((call) => this.#prepare(lane, call))
    if (!calls.some(({ kind }) => kind === 'download')) return commands
    const arrived = this.#event()
    commands.push(() => {
      checkDriver(driver, driver.cuEventRecord(arrived, down), 'note the results')
      checkDriver(driver, driver.cuStreamWaitEvent(stream, arrived, 0), 'await the results')
    })
    return commands
  }

  /** A call as a function without arguments. */
  #prepare(lane: Lane, call: Call): () => void {
    const { driver, cudnn, stream, down, handle } = this.#gpu
    switch (call.kind) {
      case 'upload':
        return this.#upload(lane, call.tensor, stream)
      case 'download': {
        const { tensor, offset, size } = call
        const bytes = bytesOf[tensor.type]
        const to = this.#pinned(lane, tensor) + BigInt(offset * bytes)
        const from = this.#address(lane, tensor, offset)
        const computed = this.#event()
        return () => {
          checkDriver(driver, driver.cuEventRecord(computed, stream), 'note a result')
          checkDriver(driver, driver.cuStreamWaitEvent(down, computed, 0), 'await a result')
          checkDriver(driver, driver.cuMemcpyDtoHAsync_v2(to, from, size * bytes, down), 'copy from the GPU')
        }
      }
      case 'convolution': {
        const { name, convolution, algorithm, workspace } = call
        const { run, operands } = passes[convolution.pass]
        const descriptors = new Descriptors(cudnn, convolution)
        this.#descriptors.push(descriptors)
        const [a, b, to] = operands.map((operand) => [
          descriptors[operand],
          this.#address(lane, call[operand]),
        ])
        const scratch = workspace ? this.#address(lane, workspace) : 0n
        const args = [
          ...[handle, ONE, ...a, ...b, descriptors.convolution, algorithm],
          ...[scratch, workspace?.size ?? 0, ZERO, ...to],
        ]
        return () => checkCudnn(cudnn, cudnn[run](...args), `run ${name}`)
      }
      case 'kernel': {
        const { name, entry } = call
        const table = this.#arguments(lane, entry, call.arguments)
        const blocks = Math.ceil(call.arguments[0] / BLOCK)
        const kernel = this.#gpu.functions.get(entry)!
        const args = [kernel, blocks, 1, 1, BLOCK, 1, 1, 0, stream, table, 0n]
        return () => checkDriver(driver, driver.cuLaunchKernel(...args), `run ${name}`)
      }
    }
  }

  /** The address of an array of addresses of a kernel's arguments. */
  #arguments(lane: Lane, entry: string, values: readonly Argument[]): Handle {
    const kinds = entries.get(entry)!
    const memory = new ArrayBuffer(16 * values.length)
    this.#held.push(memory)
    const view = new DataView(memory)
    const start = koffi.address(memory)
    values.forEach((value, i) => {
      const at = 8 * values.length + 8 * i
      view.setBigUint64(8 * i, start + BigInt(at), true)
      if (kinds[i] === 'float') view.setFloat32(at, value as number, true)
      else if (kinds[i] === 'double') view.setFloat64(at, value as number, true)
      else if (kinds[i] === 'int') view.setUint32(at, value as number, true)
      else if (value !== null) {
        const { tensor, offset } = value as { tensor: Tensor; offset: number }
        const address = tensor ? this.#address(lane, tensor, offset) : this.#address(lane, value as Tensor)
        view.setBigUint64(at, address, true)
      }
    })
    return start
  }
}
