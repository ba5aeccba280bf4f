import { cacheDirectory } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import koffi from 'koffi'
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { arch } from 'node:os'
import path from 'node:path'
import util from 'node:util'

/**
 * Finds and loads @tensorflow/tfjs-node and its libtensorflow: from node_modules, or from where `convoy setup tensorflow`
 * put them.
 */

/** The packages, the one for GPUs first; without a GPU that one computes on the CPU, too. */
export const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const
export type TensorflowPackage = (typeof PACKAGES)[number]

/** The file that says that a set-up is whole, and of what. */
export const SETUP_RECORD = 'setup.json'

/** Where `convoy setup tensorflow` keeps a package, its libtensorflow and its binding. */
export function tensorflowFolder(
  name: TensorflowPackage,
  environment: NodeJS.ProcessEnv = process.env,
): string {
  return path.join(cacheDirectory(environment), 'tensorflow', name === PACKAGES[0] ? 'gpu' : 'cpu')
}

/** Whether `convoy setup tensorflow` was done, with or without --gpu. */
export function tensorflowIsSetUp(): boolean {
  return PACKAGES.some((name) => existsSync(path.join(tensorflowFolder(name), SETUP_RECORD)))
}

const require = createRequire(import.meta.url)

/** Loads one of the packages, as `require` does. */
export function loadPackage(name: string): unknown {
  // tfjs-node 4.22 calls what Node 22 warns of and Node 23 took out.
  Object.assign(util, { isNullOrUndefined: (value: unknown) => value === null || value === undefined })
  let installed = require
  try {
    require.resolve(name)
  } catch {
    installed = createRequire(path.join(tensorflowFolder(name as TensorflowPackage), 'package.json'))
  }
  return installed(name)
}

/** Sets a variable where C code sees it, unless it is set: in a worker thread `process.env` is a copy. Returns what it is now. */
function setForLibrary(name: string, value: string): string {
  if (process.platform === 'win32') return (process.env[name] ??= value)
  const c = koffi.load(null)
  c.func('int setenv(const char *name, const char *value, int overwrite)')(name, value, 0)
  return c.func('const char *getenv(const char *name)')(name) as string
}

/**
 * Tells libtensorflow, before it is loaded, how to compute: it takes all cores unless told otherwise, and how it cuts its sums
 * depends on their number. Throws E_ENGINE where this process has another number of threads already.
 */
export function prepareProcess(threads: number): void {
  // Information and warnings on the error output, which nobody asked for.
  setForLibrary('TF_CPP_MIN_LOG_LEVEL', '2')
  setForLibrary('TF_NUM_INTEROP_THREADS', '1')
  // On a GPU: the same bits each time, float32 that is no TF32, and no more memory than is needed.
  setForLibrary('TF_DETERMINISTIC_OPS', '1')
  setForLibrary('NVIDIA_TF32_OVERRIDE', '0')
  setForLibrary('TF_FORCE_GPU_ALLOW_GROWTH', 'true')
  const settled = setForLibrary('TF_NUM_INTRAOP_THREADS', String(threads))
  if (settled !== String(threads)) {
    throw new ConvoyError(
      'E_ENGINE',
      `libtensorflow has ${settled} threads in this process (TF_NUM_INTRAOP_THREADS), and ${threads} were asked for`,
      `Unset TF_NUM_INTRAOP_THREADS, or use --threads ${settled}.`,
    )
  }
}

/** What libtensorflow's convolutions choose their code by on x86, best first: flags of the kernel, oneDNN's name. */
const instructionSets = [
  ['amx_bf16', 'avx512_core_amx'],
  ['avx512_fp16', 'avx512_core_fp16'],
  ['avx512_bf16', 'avx512_core_bf16'],
  ['avx512_vnni', 'avx512_core_vnni'],
  ['avx512bw', 'avx512_core'],
  ['avx_vnni', 'avx2_vnni'],
  ['avx2', 'avx2'],
  ['avx', 'avx'],
] as const

/** The instruction set of this machine's CPU, as part of the numerics class. */
export function cpuInstructionSet(): string {
  let text = ''
  try {
    text = readFileSync('/proc/cpuinfo', 'utf8')
  } catch {
    // Not Linux.
  }
  const flags = new Set(/^flags\s*:(.*)$/m.exec(text)?.[1]?.trim().split(' '))
  return instructionSets.find(([flag]) => flags.has(flag))?.[1] ?? arch()
}

/** The name of the machine's first NVIDIA GPU. */
export function gpuName(): string {
  const query = spawnSync('nvidia-smi', ['--query-gpu=name', '--format=csv,noheader'], { encoding: 'utf8' })
  return (query.stdout as string | null)?.split('\n')[0].trim() || 'gpu'
}

/** What a libtensorflow needs for a GPU: the package's own is 2.9.1, PyPI's the one that is set up here. */
function wanted(version: string | undefined): string {
  return version?.startsWith('2.9.')
    ? 'CUDA 11.2 with cuDNN 8.1'
    : 'CUDA 12.5 or newer with cuDNN 9.3 or newer'
}

/** E_ENGINE_GPU with what was found and what is wanted. */
export function gpuUnused(reason: string, version?: string): ConvoyError {
  return new ConvoyError(
    'E_ENGINE_GPU',
    `a GPU was asked for and would not be used: ${reason}. Found ${foundLibraries()}; wanted ${wanted(version)}`,
    version === undefined
      ? 'Run `convoy setup tensorflow --gpu`, or leave out --gpu.'
      : `Install ${wanted(version)} where the loader finds them (LD_LIBRARY_PATH), or leave out --gpu.`,
  )
}

/** The driver, CUDA and cuDNN libraries of this machine, by their file names, the newest of each. */
function foundLibraries(): string {
  const list = (folder: string) => {
    try {
      return readdirSync(folder)
    } catch {
      return []
    }
  }
  const folders = [
    ...list('/usr/local').flatMap((name) => (name.startsWith('cuda') ? [`/usr/local/${name}/lib64`] : [])),
    '/usr/lib/x86_64-linux-gnu',
    '/usr/lib64',
    ...(process.env['LD_LIBRARY_PATH'] ?? '').split(':'),
  ]
  const cached = spawnSync('ldconfig', ['-p'], { encoding: 'utf8' }).stdout as string | null
  const files = [...(cached ?? '').split(/\s+/), ...folders.flatMap(list)]
  const newest = (library: string) => {
    const versions = files.filter((file) => file.startsWith(`${library}.so.`))
    return versions.sort((a, b) => a.localeCompare(b, 'en', { numeric: true })).at(-1)
  }
  const driver = newest('libcuda') ?? 'no driver (libcuda)'
  return `${driver}, ${newest('libcudart') ?? 'no CUDA'} and ${newest('libcudnn') ?? 'no cuDNN'}`
}
