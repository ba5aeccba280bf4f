export { createCudnnEngine } from './engine.ts'
export type { CudnnOptions } from './engine.ts'
export { cudnnGpus, gpuCount } from './library.ts'
