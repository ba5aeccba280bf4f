export { createEngine, engineNames } from './engines.ts'
export type { EngineName } from './engines.ts'
