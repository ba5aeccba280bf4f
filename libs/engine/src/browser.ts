/** What the page uses too: nothing here needs Node.js. */
export { buildNetwork } from './tfjs/network.ts'
export type { Network } from './tfjs/network.ts'
export { registerWasmKernels } from './tfjs/wasm-kernels.ts'
