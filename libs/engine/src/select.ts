import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { Engine } from './engine.ts'
import { createOnednnEngine } from './onednn/engine.ts'

/** What was asked for. */
export interface EngineChoice {
  readonly engine: 'auto' | 'onednn' | 'tfjs' | 'tfjs-wasm' | 'tfjs-cpu' | 'tfjs-tensorflow'
  readonly precision: 'auto' | 'float32' | 'bf16'
  readonly threads: number
  /** Refuse anything but a GPU. */
  readonly gpu: boolean
}

type Backend = 'cpu' | 'wasm' | 'tensorflow'

/** TensorFlow.js takes a third of a second to load, which a worker on another engine need not spend. */
async function tfjs(backend: Backend, { precision, threads, gpu }: EngineChoice): Promise<Engine> {
  if (precision === 'bf16') {
    throw new ConvoyError(
      'E_ENGINE',
      'TensorFlow.js computes in float32 only',
      'Use --precision float32, or --engine onednn.',
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

/**
 * Makes the engine that was asked for; for `auto` and `tfjs`, the fastest that runs on this machine. Throws E_ENGINE or
 * E_ENGINE_GPU with what stands in the way.
 */
export async function createEngine(choice: EngineChoice): Promise<Engine> {
  const { engine, gpu } = choice
  switch (engine) {
    case 'onednn':
      if (gpu)
        throw new ConvoyError(
          'E_ENGINE_GPU',
          'oneDNN computes on the CPU here',
          'Leave out --gpu or --engine.',
        )
      return createOnednnEngine(choice)
    case 'tfjs-cpu':
      return tfjs('cpu', choice)
    case 'tfjs-wasm':
      return tfjs('wasm', choice)
    case 'tfjs-tensorflow':
      return tfjs('tensorflow', choice)
  }
  if (gpu) return tfjs('tensorflow', choice)
  const candidates: (() => Promise<Engine>)[] = [
    () => tfjs('tensorflow', choice),
    () => tfjs('wasm', choice),
    () => tfjs('cpu', choice),
  ]
  if (engine === 'auto') candidates.unshift(() => createOnednnEngine(choice))
  let last: ConvoyError | undefined
  for (const candidate of candidates) {
    try {
      return await candidate()
    } catch (error) {
      last = asConvoyError(error)
      // Not installed is what `auto` is there for; anything else is a defect that must not pass as slowness.
      if (last.code !== 'E_ENGINE' && last.code !== 'E_ENGINE_GPU') throw last
    }
  }
  throw last!
}
