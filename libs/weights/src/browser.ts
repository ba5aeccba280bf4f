/** What the page uses too: nothing here needs Node.js. */
export type { Network, WeightsFile } from './file.ts'
export { networkSpec, unreadable } from './file.ts'
export { matchWeights, requireFinite } from './match.ts'
export { isSafetensors, readSafetensors } from './safetensors.ts'
export { readTfjs } from './tfjs.ts'
