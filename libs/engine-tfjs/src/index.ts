export { createEngine } from './create.ts'
export { tensorflowIsSetUp } from './libtensorflow.ts'
export { setUpTensorflow } from './setup.ts'
export type { SetupOptions, SetupResult } from './setup.ts'
