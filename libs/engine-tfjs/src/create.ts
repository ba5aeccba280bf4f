import type { Engine, EngineChoice } from '@convoy/engine'
import { ConvoyError } from '@convoy/errors'
import type { Backend } from './backend.ts'

/**
 * Makes the engine that was asked for, by the name of its backend: `tfjs-wasm`, say. Throws E_ENGINE or E_ENGINE_GPU.
 *
 * TensorFlow.js is loaded here: that takes a third of a second, which who only sets it up need not spend.
 */
export async function createEngine(choice: EngineChoice): Promise<Engine> {
  const { engine, precision, threads, gpu } = choice
  const backend = engine.replace('tfjs-', '') as Backend
  if (precision === 'bf16' || precision === 'tf32') {
    throw new ConvoyError(
      'E_ENGINE',
      'TensorFlow.js computes in float32 only',
      'Use --precision float32, or another --engine.',
    )
  }
  if (engine === 'webgpu') return (await import('./dawn.ts')).createDawnEngine(choice)
  if (threads !== 1 && backend !== 'tensorflow') {
    throw new ConvoyError(
      'E_ENGINE',
      `TensorFlow.js on ${backend} has one thread under Node.js`,
      'Use --threads 1 and more workers instead, or --engine onednn.',
    )
  }
  const { createTfjsEngine } = await import('./engine.ts').catch((error: NodeJS.ErrnoException) => {
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
