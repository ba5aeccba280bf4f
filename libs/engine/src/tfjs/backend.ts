import { ConvoyError } from '@convoy/errors'
import * as tf from '@tensorflow/tfjs-core'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { registerWasmKernels } from './wasm-kernels.ts'

export type Backend = 'cpu' | 'wasm' | 'tensorflow'

/** What @tensorflow/tfjs-node-gpu 4.22 is built for. */
const WANTED = 'CUDA 11.2 with cuDNN 8.1'
const PACKAGES = ['@tensorflow/tfjs-node-gpu', '@tensorflow/tfjs-node'] as const

const require = createRequire(import.meta.url)

/** What a backend computes with, in words, and as part of the numerics class. */
export interface BackendInfo {
  readonly version: string
  readonly instructionSet: string
  readonly text: string
}

/** Makes a backend ready. Throws E_ENGINE where it cannot run here, E_ENGINE_GPU where a GPU was asked for and is not used. */
export async function prepareBackend(backend: Backend, gpu: boolean): Promise<BackendInfo> {
  if (gpu && backend !== 'tensorflow') {
    throw new ConvoyError('E_ENGINE_GPU', `TensorFlow.js on ${backend} does not use a GPU`, 'Leave out --gpu, or use --engine tfjs-tensorflow.')
  }
  switch (backend) {
    case 'cpu':
      await import('@tensorflow/tfjs-backend-cpu')
      await use('cpu')
      return { version: `${tf.version_core} v8 ${process.versions.v8}`, instructionSet: 'javascript', text: 'plain JavaScript' }
    case 'wasm': {
      const { setWasmPaths } = await import('@tensorflow/tfjs-backend-wasm')
      // The path is set, since a bundled program does not lie beside the package's files.
      setWasmPaths(`${path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm'))}/`)
      await use('wasm')
      registerWasmKernels()
      const simd = await tf.env().getAsync('WASM_HAS_SIMD_SUPPORT')
      const set = simd ? 'wasm-simd' : 'wasm'
      return { version: `${tf.version_core} v8 ${process.versions.v8}`, instructionSet: set, text: set }
    }
    case 'tensorflow':
      return useLibtensorflow(gpu)
  }
}

async function use(backend: string): Promise<void> {
  if (!(await tf.setBackend(backend))) {
    throw new ConvoyError('E_ENGINE', `the ${backend} backend of TensorFlow.js does not start`, 'Use another --engine.')
  }
}

async function useLibtensorflow(gpu: boolean): Promise<BackendInfo> {
  const reasons: string[] = []
  for (const name of PACKAGES) {
    if (gpu && name !== PACKAGES[0]) continue
    try {
      require(name)
    } catch (error) {
      const missing = (error as NodeJS.ErrnoException).code === 'MODULE_NOT_FOUND'
      reasons.push(`${name} ${missing ? 'is not installed' : `does not load: ${(error as Error).message.split('\n')[0]}`}`)
      continue
    }
    await use('tensorflow')
    const native = tf.backend() as unknown as { isUsingGpuDevice?: boolean; binding?: { TF_Version?: string } }
    const onGpu = native.isUsingGpuDevice === true
    if (gpu && !onGpu) throw gpuUnused('libtensorflow loaded, but found no GPU that it can use')
    const version = native.binding?.TF_Version ?? 'unknown'
    return {
      version: `${tf.version_core} libtensorflow ${version}`,
      instructionSet: onGpu ? 'gpu' : 'cpu',
      text: `libtensorflow ${version} on the ${onGpu ? 'GPU' : 'CPU'}`,
    }
  }
  if (gpu) throw gpuUnused(reasons.join('; '))
  throw new ConvoyError('E_ENGINE', reasons.join('; '), 'Install one with `npm install --no-save @tensorflow/tfjs-node`, or use --engine auto.')
}

function gpuUnused(reason: string): ConvoyError {
  return new ConvoyError(
    'E_ENGINE_GPU',
    `a GPU was asked for and would not be used: ${reason}. Found ${foundLibraries()}; wanted ${WANTED}`,
    `Install @tensorflow/tfjs-node-gpu and ${WANTED}, or leave out --gpu.`,
  )
}

/** The CUDA and cuDNN libraries of this machine, by their file names. */
function foundLibraries(): string {
  const listed = spawnSync('ldconfig', ['-p'], { encoding: 'utf8' }).stdout ?? ''
  const folders = ['/usr/local/cuda/lib64', ...(process.env['LD_LIBRARY_PATH'] ?? '').split(':')].filter(existsSync)
  const inFolders = folders.flatMap((folder) => spawnSync('ls', [folder], { encoding: 'utf8' }).stdout.split('\n'))
  const find = (name: string) => {
    const versions = [...listed.matchAll(new RegExp(`${name}\\.so\\.[\\d.]+`, 'g'))].map(([file]) => file)
    versions.push(...inFolders.filter((file) => file.startsWith(`${name}.so.`)))
    return versions.sort().at(-1)
  }
  return `${find('libcudart') ?? 'no CUDA'} and ${find('libcudnn') ?? 'no cuDNN'}`
}
