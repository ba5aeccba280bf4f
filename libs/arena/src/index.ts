export { Arena } from './arena.ts'
export type { Momentum, Slot } from './arena.ts'
