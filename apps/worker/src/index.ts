export { engineSchema, workerSchema } from './config.ts'
export type { EngineConfig, WorkerConfig } from './config.ts'
export { Worker } from './worker.ts'
export type { WorkerLog } from './worker.ts'
