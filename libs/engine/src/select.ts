import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { Engine } from './engine.ts'
import { createCudnnEngine } from './cudnn/engine.ts'
import { gpuCount } from './cudnn/library.ts'
import { createOnednnEngine } from './onednn/engine.ts'

/** What was asked for. */
export interface EngineChoice {
  readonly engine: 'auto' | 'cudnn' | 'onednn' | 'tfjs' | 'tfjs-wasm' | 'tfjs-cpu' | 'tfjs-tensorflow'
  readonly precision: 'auto' | 'float32' | 'tf32' | 'bf16'
  /** Of the CPU; cudnn has no use for them. */
  readonly threads: number
  /** Which NVIDIA GPU, from 0, where the engine is cudnn. */
  readonly device: number
  /** Refuse anything but a GPU. */
  readonly gpu: boolean
}

type Backend = 'cpu' | 'wasm' | 'tensorflow'

/** TensorFlow.js takes a third of a second to load, which a worker on another engine need not spend. */
async function tfjs(backend: Backend, { precision, threads, gpu }: EngineChoice): Promise<Engine> {
  if (precision === 'bf16' || precision === 'tf32') {
    throw new ConvoyError(
      'E_ENGINE',
      'TensorFlow.js computes in float32 only',
      'Use --precision float32, or another --engine.',
    )
  }
  if (threads !== 1 && backend !== 'tensorflow') {
    throw new ConvoyError(
      'E_ENGINE',
      `TensorFlow.js on ${backend} has one thread under Node.js`,
      'Use --threads 1 and more workers instead, or --engine onednn.',
    )
  }
  const { createTfjsEngine } = await import('./tfjs/engine.ts').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
    // The image of CPU workers leaves it out.
    throw new ConvoyError(
      gpu ? 'E_ENGINE_GPU' : 'E_ENGINE',
      `${gpu ? 'a GPU was asked for and would not be used: ' : ''}TensorFlow.js is not part of this installation`,
      gpu ? 'Use the image convoy-worker-gpu, or leave out --gpu.' : 'Use --engine onednn.',
    )
  })
  return createTfjsEngine({ backend, gpu, threads })
}

async function onednn({ precision, threads, gpu }: EngineChoice): Promise<Engine> {
  if (gpu) {
    throw new ConvoyError('E_ENGINE_GPU', 'oneDNN computes on the CPU here', 'Leave out --gpu or --engine.')
  }
  if (precision === 'tf32') {
    throw new ConvoyError('E_ENGINE', 'only GPUs have TF32', 'Use --precision auto, or --engine cudnn.')
  }
  return createOnednnEngine({ precision, threads })
}

/**
 * Makes the engine that was asked for; for `auto` and `tfjs`, the fastest that runs on this machine. Throws E_ENGINE or
 * E_ENGINE_GPU with what stands in the way. On a GPU, cudnn comes first; it is taken only where the gradient that it computes
 * to try itself is right.
 */
export async function createEngine(choice: EngineChoice): Promise<Engine> {
  const { engine, gpu } = choice
  switch (engine) {
    case 'cudnn':
      return createCudnnEngine(choice)
    case 'onednn':
      return onednn(choice)
    case 'tfjs-cpu':
      return tfjs('cpu', choice)
    case 'tfjs-wasm':
      return tfjs('wasm', choice)
    case 'tfjs-tensorflow':
      return tfjs('tensorflow', choice)
  }
  const onGpus = [
    ...(engine === 'auto' ? [() => createCudnnEngine(choice)] : []),
    () => tfjs('tensorflow', { ...choice, gpu: true }),
  ]
  const onCpu = [
    ...(engine === 'auto' ? [() => onednn(choice)] : []),
    () => tfjs('tensorflow', choice),
    () => tfjs('wasm', choice),
    () => tfjs('cpu', choice),
  ]
  const tryGpus = gpu || (engine === 'auto' && gpuCount() > 0)
  const candidates: (() => Promise<Engine>)[] = [...(tryGpus ? onGpus : []), ...(gpu ? [] : onCpu)]
  const reasons: ConvoyError[] = []
  for (const candidate of candidates) {
    try {
      return await candidate()
    } catch (error) {
      const reason = asConvoyError(error)
      // Not installed is what `auto` is there for; anything else is a defect that must not pass as slowness.
      if (reason.code !== 'E_ENGINE' && reason.code !== 'E_ENGINE_GPU') throw reason
      reasons.push(reason)
    }
  }
  const last = reasons.at(-1)!
  if (!gpu || reasons.length === 1) throw last
  // Of the two ways to a GPU, either may be the one that was meant.
  throw new ConvoyError(last.code, reasons.map(({ message }) => message).join('; '), reasons[0].remedy)
}
