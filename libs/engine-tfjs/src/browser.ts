/** What the page uses too: nothing here needs Node.js. */
export { buildNetwork } from './network.ts'
export type { Network } from './network.ts'
export { registerWasmKernels } from './wasm-kernels.ts'
