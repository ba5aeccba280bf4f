import { ConvoyError } from '@convoy/errors'
import type { WebGPUBackend } from '@tensorflow/tfjs-backend-webgpu'
import * as tf from '@tensorflow/tfjs-core'
import { registerWebgpuKernels } from './webgpu-kernels.ts'

export interface WebgpuOptions {
  /** Opens a device; again where one was lost. Throws E_ENGINE_GPU where there is none. */
  readonly open: () => Promise<WebgpuAdapter>
  /** What compiles shaders, with its version: part of the numerics class. */
  readonly compiler: string
  /** Is told what happened to the device, and what was done. */
  readonly warn: (text: string) => void
}

/** An adapter to open a device on. */
export interface WebgpuAdapter {
  readonly adapter: GPUAdapter
  /** Its name and driver, as part of the numerics class. */
  readonly name: string
  /** Computed by the CPU. */
  readonly software: boolean
}

/** How often in a row a device is asked for, and a leaf computed anew on a new one, before that is given up. */
export const RETRIES = 3
/** Milliseconds before it is. */
const PAUSE = 1000

export const gpuError = (message: string, remedy: string, cause?: unknown) =>
  new ConvoyError('E_ENGINE_GPU', message, remedy, { cause })

/** The device that TensorFlow.js's backend computes on, and the one that comes after it where it is lost. */
export class WebgpuDevice {
  readonly #options: WebgpuOptions
  /** Its name and driver. */
  readonly name: string
  /** Counts the devices; what was made on an older one is gone with it. */
  #generation = 0
  #backend!: WebGPUBackend
  /** Why the device is gone. */
  #lost: string | undefined
  #disposed = false
  #reopening: Promise<void> | undefined

  private constructor(options: WebgpuOptions, name: string) {
    this.#options = options
    this.name = name
  }

  /** Throws E_ENGINE_GPU where there is none. */
  static async open(options: WebgpuOptions): Promise<{ device: WebgpuDevice; software: boolean }> {
    const adapter = await options.open()
    const device = new WebgpuDevice(options, adapter.name)
    await device.#use(adapter)
    return { device, software: adapter.software }
  }

  get generation(): number {
    return this.#generation
  }

  get backend(): WebGPUBackend {
    return this.#backend
  }

  get lost(): boolean {
    return this.#lost !== undefined
  }

  async #use({ adapter }: WebgpuAdapter): Promise<void> {
    const { limits, info } = adapter as GPUAdapter & { readonly info: GPUAdapterInfo }
    const device = await adapter.requestDevice({
      requiredLimits: {
        maxComputeWorkgroupStorageSize: limits.maxComputeWorkgroupStorageSize,
        maxComputeWorkgroupsPerDimension: limits.maxComputeWorkgroupsPerDimension,
        maxStorageBufferBindingSize: limits.maxStorageBufferBindingSize,
        maxBufferSize: limits.maxBufferSize,
        maxComputeWorkgroupSizeX: limits.maxComputeWorkgroupSizeX,
        maxComputeInvocationsPerWorkgroup: limits.maxComputeInvocationsPerWorkgroup,
      },
    })
    const { WebGPUBackend } = await import('@tensorflow/tfjs-backend-webgpu')
    registerWebgpuKernels()
    // No small tensors by the CPU, and no sums by atomics (split K), whose order is left open.
    tf.env().set('WEBGPU_CPU_FORWARD', false)
    tf.env().set('WEBGPU_MATMUL_PROGRAM_TYPE', 3)
    if (tf.findBackendFactory('webgpu')) tf.removeBackend('webgpu')
    tf.registerBackend('webgpu', () => new WebGPUBackend(device, info))
    if (!(await tf.setBackend('webgpu')))
      throw gpuError('TensorFlow.js does not start on WebGPU', 'Use another --engine.')
    this.#backend = tf.backend() as WebGPUBackend
    this.#lost = undefined
    this.#generation++
    void device.lost.then(({ reason, message }) => {
      if (this.#disposed || this.#backend.device !== device) return
      this.#lost = `${reason} ${message}`.trim()
      this.#options.warn(`the WebGPU device was lost (${this.#lost}); opening it again`)
    })
  }

  /** Opens the device again, once for all who wait for it. Throws E_ENGINE_GPU where it does not come back. */
  reopen(): Promise<void> {
    this.#reopening ??= this.#reopen().finally(() => (this.#reopening = undefined))
    return this.#reopening
  }

  async #reopen(): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const adapter = await this.#options.open()
        if (adapter.name !== this.name)
          throw gpuError(
            `the device that came back is ${adapter.name}, and no longer ${this.name}`,
            'Start the worker again.',
          )
        return await this.#use(adapter)
      } catch (error) {
        if (attempt === RETRIES) throw error
        await new Promise((resolve) => setTimeout(resolve, PAUSE * attempt))
      }
    }
  }

  dispose(): void {
    if (this.#disposed) return
    this.#disposed = true
    const { device } = this.#backend
    tf.removeBackend('webgpu')
    device.destroy()
  }
}
