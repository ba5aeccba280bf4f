import { ConvoyError } from '@convoy/errors'
import * as tf from '@tensorflow/tfjs-core'
import { createRequire } from 'node:module'
import path from 'node:path'
import {
  cpuInstructionSet,
  gpuName,
  gpuUnused,
  loadPackage,
  PACKAGES,
  prepareProcess,
} from './libtensorflow.ts'
import { registerWasmKernels } from './wasm-kernels.ts'

export type Backend = 'cpu' | 'wasm' | 'tensorflow'

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
 * @param threads Other than 1 only on `tensorflow`.
 * @param load Loads one of the optional packages by its name, as `require` does.
 */
export async function prepareBackend(
  backend: Backend,
  gpu: boolean,
  threads = 1,
  load: (name: string) => unknown = loadPackage,
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
      return useLibtensorflow(gpu, threads, load)
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

async function useLibtensorflow(
  gpu: boolean,
  threads: number,
  load: (name: string) => unknown,
): Promise<BackendInfo> {
  prepareProcess(threads)
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
    const version = native.binding?.TF_Version ?? 'unknown'
    if (gpu && !onGpu) {
      throw gpuUnused(`libtensorflow ${version} loaded, but found no GPU that it can use`, version)
    }
    const instructionSet = onGpu ? gpuName() : cpuInstructionSet()
    return {
      version: `${tf.version_core} libtensorflow ${version}`,
      instructionSet,
      threads,
      text: `libtensorflow ${version} on the ${onGpu ? 'GPU' : 'CPU'}, ${instructionSet}, ${threads} thread${threads === 1 ? '' : 's'}`,
    }
  }
  if (gpu) throw gpuUnused(reasons.join('; '))
  throw new ConvoyError(
    'E_ENGINE',
    reasons.join('; '),
    'Run `convoy setup tensorflow`, or use --engine auto.',
  )
}
