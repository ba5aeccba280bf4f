import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import path from 'node:path'
import koffi, { type LibraryHandle } from 'koffi'
import { ConvoyError } from '@convoy/errors'

/**
 * Finds and loads what an NVIDIA GPU is used through: the driver (libcuda), cuDNN 9 and NVRTC. This file has all that
 * depends on their versions: the functions' declarations and the values of their enums.
 *
 * The driver comes from CONVOY_CUDA where that has one (CUDA's compatibility package), else from the loader. The other two are looked for, in order, in the folder CONVOY_CUDA (which then
 * must have them), by the loader (so in LD_LIBRARY_PATH, too), in /usr/local/cuda, and in the `nvidia` packages of a Python
 * environment: VIRTUAL_ENV, CONDA_PREFIX, or that of `python3`. cuDNN brings the CUDA runtime that it needs.
 *
 * Sources: cuda.h and nvrtc.h of CUDA 12.9, cudnn_graph_v9.h, cudnn_ops_v9.h and cudnn_cnn_v9.h of cuDNN 9.28. cuDNN 9
 * calls its convolution functions deprecated and has them all. They do what is needed here in a tenth of the calls of its graphs.
 */

const driverFunctions = [
  'int cuInit(unsigned int flags)',
  'int cuDriverGetVersion(void *version)',
  'int cuGetErrorName(int error, void *name)',
  'int cuDeviceGetCount(void *count)',
  'int cuDeviceGet(void *device, int ordinal)',
  'int cuDeviceGetName(void *name, int length, int device)',
  'int cuDeviceGetAttribute(void *value, int attribute, int device)',
  'int cuDevicePrimaryCtxRetain(void *context, int device)',
  'int cuDevicePrimaryCtxRelease_v2(int device)',
  'int cuCtxSetCurrent(void *context)',
  'int cuMemAlloc_v2(void *address, size_t bytes)',
  'int cuMemFree_v2(uint64_t address)',
  'int cuMemHostAlloc(void *address, size_t bytes, unsigned int flags)',
  'int cuMemFreeHost(void *address)',
  'int cuMemcpyHtoDAsync_v2(uint64_t to, void *from, size_t bytes, void *stream)',
  'int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream)',
  'int cuStreamCreate(void *stream, unsigned int flags)',
  'int cuStreamDestroy_v2(void *stream)',
  'int cuStreamSynchronize(void *stream)',
  'int cuStreamWaitEvent(void *stream, void *event, unsigned int flags)',
  'int cuEventCreate(void *event, unsigned int flags)',
  'int cuEventRecord(void *event, void *stream)',
  'int cuEventSynchronize(void *event)',
  'int cuEventDestroy_v2(void *event)',
  'int cuModuleLoadData(void *module, void *image)',
  'int cuModuleUnload(void *module)',
  'int cuModuleGetFunction(void *function, void *module, const char *name)',
  'int cuLaunchKernel(void *function, unsigned int gridX, unsigned int gridY, unsigned int gridZ, unsigned int blockX, unsigned int blockY, unsigned int blockZ, unsigned int sharedBytes, void *stream, void *parameters, void *extra)',
  'int cuStreamBeginCapture_v2(void *stream, int mode)',
  'int cuStreamEndCapture(void *stream, void *graph)',
  'int cuGraphInstantiateWithFlags(void *executable, void *graph, uint64_t flags)',
  'int cuGraphLaunch(void *executable, void *stream)',
  'int cuGraphExecDestroy(void *executable)',
  'int cuGraphDestroy(void *graph)',
] as const

const cudnnFunctions = [
  'size_t cudnnGetVersion()',
  'const char *cudnnGetErrorString(int status)',
  'int cudnnCreate(void *handle)',
  'int cudnnDestroy(void *handle)',
  'int cudnnSetStream(void *handle, void *stream)',
  'int cudnnCreateTensorDescriptor(void *descriptor)',
  'int cudnnSetTensor4dDescriptor(void *descriptor, int format, int type, int n, int c, int h, int w)',
  'int cudnnDestroyTensorDescriptor(void *descriptor)',
  'int cudnnCreateFilterDescriptor(void *descriptor)',
  'int cudnnSetFilter4dDescriptor(void *descriptor, int type, int format, int k, int c, int h, int w)',
  'int cudnnDestroyFilterDescriptor(void *descriptor)',
  'int cudnnCreateConvolutionDescriptor(void *descriptor)',
  'int cudnnSetConvolution2dDescriptor(void *descriptor, int padHeight, int padWidth, int strideHeight, int strideWidth, int dilationHeight, int dilationWidth, int mode, int computeType)',
  'int cudnnSetConvolutionMathType(void *descriptor, int mathType)',
  'int cudnnGetConvolution2dForwardOutputDim(void *convolution, void *input, void *filter, void *n, void *c, void *h, void *w)',
  'int cudnnDestroyConvolutionDescriptor(void *descriptor)',
  'int cudnnGetConvolutionForwardWorkspaceSize(void *handle, void *x, void *w, void *convolution, void *y, int algorithm, void *bytes)',
  'int cudnnGetConvolutionBackwardDataWorkspaceSize(void *handle, void *w, void *dy, void *convolution, void *dx, int algorithm, void *bytes)',
  'int cudnnGetConvolutionBackwardFilterWorkspaceSize(void *handle, void *x, void *dy, void *convolution, void *dw, int algorithm, void *bytes)',
  'int cudnnConvolutionForward(void *handle, void *alpha, void *xDescriptor, void *x, void *wDescriptor, void *w, void *convolution, int algorithm, void *workspace, size_t workspaceBytes, void *beta, void *yDescriptor, void *y)',
  'int cudnnConvolutionBackwardData(void *handle, void *alpha, void *wDescriptor, void *w, void *dyDescriptor, void *dy, void *convolution, int algorithm, void *workspace, size_t workspaceBytes, void *beta, void *dxDescriptor, void *dx)',
  'int cudnnConvolutionBackwardFilter(void *handle, void *alpha, void *xDescriptor, void *x, void *dyDescriptor, void *dy, void *convolution, int algorithm, void *workspace, size_t workspaceBytes, void *beta, void *dwDescriptor, void *dw)',
] as const

const nvrtcFunctions = [
  'int nvrtcVersion(void *major, void *minor)',
  'const char *nvrtcGetErrorString(int result)',
  'int nvrtcCreateProgram(void *program, const char *source, const char *name, int headers, void *headerSources, void *headerNames)',
  'int nvrtcCompileProgram(void *program, int options, void *optionTexts)',
  'int nvrtcGetProgramLogSize(void *program, void *bytes)',
  'int nvrtcGetProgramLog(void *program, void *log)',
  'int nvrtcGetCUBINSize(void *program, void *bytes)',
  'int nvrtcGetCUBIN(void *program, void *code)',
  'int nvrtcGetPTXSize(void *program, void *bytes)',
  'int nvrtcGetPTX(void *program, void *code)',
  'int nvrtcDestroyProgram(void *program)',
] as const

/** Every function that is declared here, for the test that holds them against the headers. */
export const declarations = { driver: driverFunctions, cudnn: cudnnFunctions, nvrtc: nvrtcFunctions }

/** The values of the headers' enums that are passed or compared here, under the headers' names. */
export const Enum = {
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: 76,
  CU_STREAM_NON_BLOCKING: 1,
  CU_EVENT_DISABLE_TIMING: 2,
  CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: 1,
  CUDA_ERROR_OUT_OF_MEMORY: 2,
  CUDNN_TENSOR_NHWC: 1,
  CUDNN_DATA_FLOAT: 0,
  CUDNN_DATA_BFLOAT16: 9,
  CUDNN_CROSS_CORRELATION: 1,
  CUDNN_DEFAULT_MATH: 0,
  CUDNN_FMA_MATH: 3,
  CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_GEMM: 0,
  CUDNN_CONVOLUTION_FWD_ALGO_IMPLICIT_PRECOMP_GEMM: 1,
  CUDNN_CONVOLUTION_BWD_DATA_ALGO_1: 1,
  CUDNN_CONVOLUTION_BWD_FILTER_ALGO_1: 1,
} as const

type NameOf<D extends string> = D extends `${string} ${infer Rest}(${string}`
  ? NameOf<`${Rest}(`>
  : D extends `*${infer Name}(`
    ? Name
    : D extends `${infer Name}(`
      ? Name
      : never
type Functions<D extends readonly string[]> = Record<
  NameOf<D[number]>,
  (...args: (number | bigint | string | ArrayBufferView | ArrayBuffer | null)[]) => number | string
>

export type Driver = Functions<typeof driverFunctions>
export type Cudnn = Functions<typeof cudnnFunctions>
export type Nvrtc = Functions<typeof nvrtcFunctions>

/** Throws E_ENGINE_GPU where a function is missing. */
function declare<D extends readonly string[]>(
  library: LibraryHandle,
  file: string,
  functions: D,
): Functions<D> {
  try {
    return Object.fromEntries(
      functions.map((text) => [/(\w+)\(/.exec(text)![1], library.func(text)]),
    ) as unknown as Functions<D>
  } catch (error) {
    throw refusal(`${file} does not fit: ${(error as Error).message}`, INSTALL)
  }
}

/** Keeps a shared library in the process for good: koffi unloads libraries as its environment goes, and these have threads. */
function pin(file: string): void {
  const NOW = 2
  const NO_DELETE = 0x1000
  koffi.load(null).func('void *dlopen(const char *file, int flags)')(file, NOW | NO_DELETE)
}

const INSTALL =
  'Install them with `pip install nvidia-cudnn-cu12 nvidia-cuda-nvrtc-cu12` in the Python environment that is active, or name their folder in CONVOY_CUDA.'

function refusal(message: string, remedy: string): ConvoyError {
  return new ConvoyError('E_ENGINE_GPU', message, remedy)
}

/** The `lib` folders of NVIDIA's packages below the site-packages of a Python environment. */
function packageFolders(sitePackages: string): string[] {
  return ['cudnn', 'cuda_nvrtc', 'cu13'].map((name) => path.join(sitePackages, 'nvidia', name, 'lib'))
}

/** site-packages of the environment in `prefix`. */
function sitePackages(prefix: string): string[] {
  const lib = path.join(prefix, 'lib')
  const versions = existsSync(lib) ? readdirSync(lib).filter((name) => /^python3/.test(name)) : []
  return versions.map((version) => path.join(lib, version, 'site-packages'))
}

/** Folders to look in after the loader, the first that has a library wins. */
function folders(): string[] {
  const asked = process.env['CONVOY_CUDA']
  if (asked) {
    const below = [asked, ...sitePackages(asked)].flatMap(packageFolders)
    const packages = path.basename(asked) === 'nvidia' ? packageFolders(path.dirname(asked)) : []
    return [asked, path.join(asked, 'lib'), path.join(asked, 'lib64'), ...below, ...packages]
  }
  const prefixes = ['VIRTUAL_ENV', 'CONDA_PREFIX'].flatMap((name) => process.env[name] ?? [])
  return [
    ...['/usr/local/cuda/lib64', ...prefixes.map((prefix) => path.join(prefix, 'lib'))],
    ...prefixes.flatMap(sitePackages).flatMap(packageFolders),
  ]
}

let pythonFolders: string[] | undefined

/** Folders that `python3` knows; asked only where nothing else has the libraries. */
function fromPython(): string[] {
  const program = 'import site; print("\\n".join(site.getsitepackages() + [site.getusersitepackages()]))'
  pythonFolders ??= spawnSync('python3', ['-c', program], { encoding: 'utf8', timeout: 10_000 })
    .stdout?.split('\n')
    .filter(Boolean)
    .flatMap(packageFolders)
  return (pythonFolders ??= [])
}

/** Loads the first of `names` that can be had. */
function find(what: string, names: readonly string[]): { library: LibraryHandle; file: string } {
  const asked = process.env['CONVOY_CUDA']
  const reasons: string[] = []
  const attempt = (file: string) => {
    try {
      const library = koffi.load(file)
      pin(file)
      return { library, file }
    } catch (error) {
      reasons.push(`${file}: ${error instanceof Error ? error.message : String(error)}`)
      return undefined
    }
  }
  const attemptIn = (list: readonly string[]) => {
    for (const folder of list) {
      for (const name of names) {
        const file = path.join(folder, name)
        const found = existsSync(file) ? attempt(file) : undefined
        if (found) return found
      }
    }
    return undefined
  }
  const byLoader = () => {
    for (const name of names) {
      const found = attempt(name)
      if (found) return found
    }
    return undefined
  }
  const found = asked ? attemptIn(folders()) : (byLoader() ?? attemptIn(folders()) ?? attemptIn(fromPython()))
  if (found) return found
  const why = reasons.at(asked ? -1 : 0)
  throw refusal(
    `${what} ${asked ? `is not in ${asked} (CONVOY_CUDA)` : 'is not installed'}${why ? ` (${why.split('\n')[0]})` : ''}`,
    INSTALL,
  )
}

/** What a function of a library gave, once a thread; errors too. */
function once<T>(load: () => T): () => T {
  let result: { value: T } | { error: unknown } | undefined
  return () => {
    if (!result) {
      try {
        result = { value: load() }
      } catch (error) {
        result = { error }
      }
    }
    if ('error' in result) throw result.error
    return result.value
  }
}

/** Loads the driver. Throws E_ENGINE_GPU where there is none, or it finds no GPU. */
export const loadDriver: () => Driver = once(() => {
  const asked = path.resolve(process.env['CONVOY_CUDA'] ?? '/', 'libcuda.so.1')
  const file = existsSync(asked) ? asked : 'libcuda.so.1'
  let library: LibraryHandle
  try {
    library = koffi.load(file)
  } catch {
    throw refusal(
      'there is no NVIDIA driver here (libcuda.so.1)',
      'Run on a machine with an NVIDIA GPU and its driver, or use another --engine.',
    )
  }
  const driver = declare(library, file, driverFunctions)
  checkDriver(driver, driver.cuInit(0), 'start the driver')
  if (deviceCount(driver) === 0)
    throw refusal('the NVIDIA driver finds no GPU', 'Check nvidia-smi, or use another --engine.')
  return driver
})

function deviceCount(driver: Driver): number {
  const count = new Int32Array(1)
  checkDriver(driver, driver.cuDeviceGetCount(count), 'count the GPUs')
  return count[0]
}

/** How many NVIDIA GPUs the driver finds; 0 where there is no driver. Never throws. */
export function gpuCount(): number {
  try {
    return deviceCount(loadDriver())
  } catch {
    return 0
  }
}

/** On how many GPUs the cudnn engine may be tried here: those of the driver, where the libraries are found, too. Never throws. */
export function cudnnGpus(): number {
  const gpus = gpuCount()
  if (gpus === 0) return 0
  try {
    loadCudnn()
    loadNvrtc()
    return gpus
  } catch {
    return 0
  }
}

/** Loads cuDNN 9. Needs no GPU. Throws E_ENGINE_GPU where there is none of that version. */
export const loadCudnn: () => { cudnn: Cudnn; version: string; file: string } = once(() => {
  const { library, file } = find('cuDNN 9', ['libcudnn.so.9'])
  const cudnn = declare(library, file, cudnnFunctions)
  const number = Number(cudnn.cudnnGetVersion())
  const version = `${Math.floor(number / 10_000)}.${Math.floor(number / 100) % 100}.${number % 100}`
  if (!version.startsWith('9.')) throw refusal(`cuDNN ${version} at ${file} is not 9`, INSTALL)
  return { cudnn, version, file }
})

/** Loads NVRTC 12 or 13. Needs no GPU. Throws E_ENGINE_GPU where there is none. */
export const loadNvrtc: () => { nvrtc: Nvrtc; version: string; file: string } = once(() => {
  const { library, file } = find('NVRTC', ['libnvrtc.so.12', 'libnvrtc.so.13'])
  const nvrtc = declare(library, file, nvrtcFunctions)
  const major = new Int32Array(1)
  const minor = new Int32Array(1)
  nvrtc.nvrtcVersion(major, minor)
  return { nvrtc, version: `${major[0]}.${minor[0]}`, file }
})

/** Throws E_ENGINE_GPU unless a call of the driver succeeded. */
export function checkDriver(driver: Driver, status: number | string, what: string): void {
  if (status === 0) return
  const name = new BigUint64Array(1)
  driver.cuGetErrorName(status, name)
  const text = name[0] === 0n ? `error ${status}` : (koffi.decode(name[0], 'char', -1) as string)
  throw refusal(
    `the NVIDIA driver could not ${what}: ${text}`,
    status === Enum.CUDA_ERROR_OUT_OF_MEMORY
      ? 'Use a smaller --micro-batch, or fewer workers on this GPU.'
      : 'Check nvidia-smi, run again with --verbose and report what it prints, or use another --engine.',
  )
}

/** Throws E_ENGINE_GPU unless a call of cuDNN succeeded. */
export function checkCudnn(cudnn: Cudnn, status: number | string, what: string): void {
  if (status !== 0) throw refuseCudnn(cudnn, status, what)
}

/** E_ENGINE_GPU for a call of cuDNN that did not succeed. */
export function refuseCudnn(cudnn: Cudnn, status: number | string, what: string): ConvoyError {
  return refusal(
    `cuDNN could not ${what}: ${cudnn.cudnnGetErrorString(status)}`,
    'Run again with --verbose and report what it prints, or use another --engine.',
  )
}

/**
 * Compiles CUDA C++ for one kind of GPU. Needs no GPU.
 *
 * @param architecture Such as `sm_90` for its machine code, or `compute_90` for PTX.
 * Throws E_ENGINE_GPU with the compiler's words.
 */
export function compileCuda(source: string, architecture: string): Uint8Array<ArrayBuffer> {
  const { nvrtc, version } = loadNvrtc()
  const handle = new BigUint64Array(1)
  const check = (result: number | string, what: string) => {
    if (result !== 0)
      throw refusal(`NVRTC ${version} could not ${what}: ${nvrtc.nvrtcGetErrorString(result)}`, INSTALL)
  }
  check(nvrtc.nvrtcCreateProgram(handle, source, 'convoy.cu', 0, null, null), 'take the kernels')
  const program = handle[0]
  try {
    const texts = [`--gpu-architecture=${architecture}`, '--std=c++17', '--fmad=false'].map(text)
    const table = BigUint64Array.from(texts, (option) => koffi.address(option))
    const result = nvrtc.nvrtcCompileProgram(program, texts.length, table)
    const bytes = new BigUint64Array(1)
    if (result !== 0) {
      nvrtc.nvrtcGetProgramLogSize(program, bytes)
      const log = new Uint8Array(Number(bytes[0]))
      nvrtc.nvrtcGetProgramLog(program, log)
      const words = new TextDecoder().decode(log).replace(/\0.*$/s, '').trim()
      throw refusal(
        `NVRTC ${version} could not compile for ${architecture}: ${words || nvrtc.nvrtcGetErrorString(result)}`,
        `A GPU newer than NVRTC needs a newer one. ${INSTALL}`,
      )
    }
    const machine = architecture.startsWith('sm_')
    check(machine ? nvrtc.nvrtcGetCUBINSize(program, bytes) : nvrtc.nvrtcGetPTXSize(program, bytes), 'say its size') // prettier-ignore
    const code = new Uint8Array(Number(bytes[0]))
    check(machine ? nvrtc.nvrtcGetCUBIN(program, code) : nvrtc.nvrtcGetPTX(program, code), 'give its code')
    return code
  } finally {
    nvrtc.nvrtcDestroyProgram(handle)
  }
}

/** A C string, in memory that stays where it is. */
function text(value: string): Uint8Array {
  return new Uint8Array(new TextEncoder().encode(`${value}\0`))
}
