export { Arena } from './arena.ts'
export type { Columns, Matrix, Momentum, Slot } from './arena.ts'
