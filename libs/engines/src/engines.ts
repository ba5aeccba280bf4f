import { selectEngine, type Engine, type EngineChoice, type EngineVendor } from '@convoy/engine'

/**
 * The engines of this program, the fastest first: the one place that names them all. An engine more is a library more and
 * an entry here. Each is imported when it is tried, since what it needs may not be installed, and takes its time to load.
 */
const vendors = [
  {
    names: ['cudnn'],
    onGpu: ['cudnn'],
    onCpu: [],
    gpuCount: () =>
      import('@convoy/engine-cudnn').then(
        ({ gpuCount }) => gpuCount(),
        () => 0,
      ),
    create: async (choice) => (await import('@convoy/engine-cudnn')).createCudnnEngine(choice),
  },
  {
    names: ['webgpu'],
    onGpu: ['webgpu'],
    onCpu: [],
    gpuCount: () =>
      import('@convoy/engine-tfjs').then(
        ({ webgpuGpuCount }) => webgpuGpuCount(),
        () => 0,
      ),
    create: async (choice) => (await import('@convoy/engine-tfjs')).createEngine(choice),
  },
  {
    names: ['onednn'],
    onGpu: [],
    onCpu: ['onednn'],
    create: async (choice) => (await import('@convoy/engine-onednn')).createEngine(choice),
  },
  {
    names: ['tfjs', 'tfjs-wasm', 'tfjs-cpu', 'tfjs-tensorflow'],
    onGpu: ['tfjs-tensorflow'],
    onCpu: ['tfjs-tensorflow', 'tfjs-wasm', 'tfjs-cpu'],
    create: async (choice) => (await import('@convoy/engine-tfjs')).createEngine(choice),
  },
] as const satisfies readonly EngineVendor[]

export type EngineName = 'auto' | (typeof vendors)[number]['names'][number]

/** What `--engine` takes. */
export const engineNames: readonly EngineName[] = ['auto', ...vendors.flatMap(({ names }) => [...names])]

/** Makes the engine that was asked for, as `selectEngine` says. */
export function createEngine(choice: EngineChoice): Promise<Engine> {
  return selectEngine(vendors, choice)
}
