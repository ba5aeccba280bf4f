import { ConvoyError } from '@convoy/errors'
import * as tf from '@tensorflow/tfjs-core'
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import { registerWasmKernels } from './wasm-kernels.ts'

export type Backend = 'cpu' | 'wasm' | 'tensorflow'

/** What @tensorflow/tfjs-node-gpu 4.22 is built for. */
const WANTED = 'CUDA 11.2 with cuDNN 8.1'
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const

// Spares checks of every operand, and a greeting on the terminal.
tf.enableProdMode()

const require = createRequire(import.meta.url)

/** What a backend computes with, in words, and as part of the numerics class. */
export interface BackendInfo {
  readonly version: string
  readonly instructionSet: string
  readonly threads: number
  readonly text: string
}

/**
 * Makes a backend ready. Throws E_ENGINE where it cannot run here, E_ENGINE_GPU where a GPU was asked for and is not used.
 *
 * @param load Loads one of the optional packages by its name, as `require` does.
 */
export async function prepareBackend(
  backend: Backend,
  gpu: boolean,
  load: (name: string) => unknown = require,
): Promise<BackendInfo> {
  if (gpu && backend !== 'tensorflow') {
    throw new ConvoyError(
      'E_ENGINE_GPU',
      `TensorFlow.js on ${backend} does not use a GPU`,
      'Leave out --gpu, or use --engine tfjs-tensorflow.',
    )
  }
  switch (backend) {
    case 'cpu':
      await import('@tensorflow/tfjs-backend-cpu')
      await use('cpu')
      return {
        version: `${tf.version_core} v8 ${process.versions.v8}`,
        instructionSet: 'javascript',
        threads: 1,
        text: 'plain JavaScript',
      }
    case 'wasm': {
      const { setWasmPaths } = await import('@tensorflow/tfjs-backend-wasm')
      // The path is set, since a bundled program does not lie beside the package's files.
      setWasmPaths(`${path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm'))}/`)
      await use('wasm')
      registerWasmKernels()
      const simd = await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT')
      const set = simd ? 'wasm-simd' : 'wasm'
      return {
        version: `${tf.version_core} v8 ${process.versions.v8}`,
        instructionSet: set,
        threads: 1,
        text: set,
      }
    }
    case 'tensorflow':
      return useLibtensorflow(gpu, load)
  }
}

async function use(backend: string): Promise<void> {
  if (!(await tf.setBackend(backend))) {
    throw new ConvoyError(
      'E_ENGINE',
      `the ${backend} backend of TensorFlow.js does not start`,
      'Use another --engine.',
    )
  }
}

async function useLibtensorflow(gpu: boolean, load: (name: string) => unknown): Promise<BackendInfo> {
  const reasons: string[] = []
  for (const name of PACKAGES) {
    if (gpu && name !== PACKAGES[0]) continue
    try {
      load(name)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      // Where the package is there but its library is not, the code is the same and the name another.
      const missing = code === 'MODULE_NOT_FOUND' && message.includes(`'${name}'`)
      reasons.push(`${name} ${missing ? 'is not installed' : `does not load: ${message.split('\n')[0]}`}`)
      continue
    }
    await use('tensorflow')
    const native = tf.backend() as unknown as {
      isUsingGpuDevice?: boolean
      binding?: { TF_Version?: string }
    }
    const onGpu = native.isUsingGpuDevice === true
    if (gpu && !onGpu) throw gpuUnused('libtensorflow loaded, but found no GPU that it can use')
    const version = native.binding?.TF_Version ?? 'unknown'
    return {
      version: `${tf.version_core} libtensorflow ${version}`,
      instructionSet: onGpu ? 'gpu' : 'cpu',
      // libtensorflow takes all cores unless told otherwise, and how it cuts its work depends on their number.
      threads: Number(process.env['TF_NUM_INTRAOP_THREADS']) || availableParallelism(),
      text: `libtensorflow ${version} on the ${onGpu ? 'GPU' : 'CPU'}`,
    }
  }
  if (gpu) throw gpuUnused(reasons.join('; '))
  throw new ConvoyError(
    'E_ENGINE',
    reasons.join('; '),
    'Install one with `npm install --no-save @tensorflow/tfjs-node`, or use --engine auto.',
  )
}

function gpuUnused(reason: string): ConvoyError {
  return new ConvoyError(
    'E_ENGINE_GPU',
    `a GPU was asked for and would not be used: ${reason}. Found ${foundLibraries()}; wanted ${WANTED}`,
    `Install @tensorflow/tfjs-node-gpu and ${WANTED}, or leave out --gpu.`,
  )
}

/** The CUDA and cuDNN libraries of this machine, by their file names, the newest of each. */
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
  return `${newest('libcudart') ?? 'no CUDA'} and ${newest('libcudnn') ?? 'no cuDNN'}`
}
