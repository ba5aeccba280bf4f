import { checkGradient, type Engine, type NumericsClass } from '@convoy/engine'
import type { ModelSpec } from '@convoy/model'
import * as tf from '@tensorflow/tfjs-core'
import { WebgpuDevice, type WebgpuOptions } from './webgpu-device.ts'
import { WebgpuModel } from './webgpu-model.ts'

/**
 * The engine on WebGPU: TensorFlow.js's WebGPU backend, with kernels of ours where webgpu-kernels.ts says. Nothing here needs
 * Node.js; whoever makes the engine says where devices come from.
 */

/** How far off a right gradient of the trial may be. */
const TOLERANCE = 1e-4

/**
 * Makes an engine on WebGPU and has it compute a gradient that is held against the reference. Throws E_ENGINE_GPU where
 * there is no device or that gradient is wrong. One at a time in a thread: TensorFlow.js has one backend of a name.
 */
export async function createWebgpuEngine(options: WebgpuOptions): Promise<WebgpuEngine> {
  tf.enableProdMode()
  const engine = await WebgpuEngine.open(options)
  try {
    await checkGradient(engine, TOLERANCE)
  } catch (error) {
    engine.dispose()
    throw error
  }
  return engine
}

export class WebgpuEngine implements Engine {
  readonly numerics: NumericsClass
  readonly description: string
  readonly device: WebgpuDevice
  readonly #models = new Set<WebgpuModel>()

  private constructor(device: WebgpuDevice, compiler: string, software: boolean) {
    this.device = device
    const { name } = device
    this.numerics = {
      engine: 'webgpu',
      version: `${tf.version_core} ${compiler}`,
      precision: 'float32',
      instructionSet: name,
      threads: 1,
    }
    const where = software ? `${name}, which the CPU computes` : name
    this.description = `TensorFlow.js ${tf.version_core} on WebGPU (${compiler}), float32, ${where}`
  }

  static async open(options: WebgpuOptions): Promise<WebgpuEngine> {
    const { device, software } = await WebgpuDevice.open(options)
    return new WebgpuEngine(device, options.compiler, software)
  }

  async compile(model: ModelSpec, maxBatch: number): Promise<WebgpuModel> {
    const compiled = new WebgpuModel(this.device, model, maxBatch, (closed) => this.#models.delete(closed))
    this.#models.add(compiled)
    try {
      await compiled.warmUp()
    } catch (error) {
      compiled.dispose()
      throw error
    }
    return compiled
  }

  dispose(): void {
    for (const model of this.#models) model.dispose()
    this.device.dispose()
  }
}
