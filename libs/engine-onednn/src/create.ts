import type { Engine, EngineChoice } from '@convoy/engine'
import { ConvoyError } from '@convoy/errors'
import { createOnednnEngine } from './engine.ts'

/** Makes the engine that was asked for. Throws E_ENGINE or E_ENGINE_GPU where it is not this one's. */
export async function createEngine({ precision, threads, gpu }: EngineChoice): Promise<Engine> {
  if (gpu) {
    throw new ConvoyError('E_ENGINE_GPU', 'oneDNN computes on the CPU here', 'Leave out --gpu or --engine.')
  }
  if (precision === 'tf32') {
    throw new ConvoyError('E_ENGINE', 'only GPUs have TF32', 'Use --precision auto, or --engine cudnn.')
  }
  return createOnednnEngine({ precision, threads })
}
