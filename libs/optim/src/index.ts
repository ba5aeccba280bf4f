export { NesterovSgd } from './nesterov.ts'
export type { SgdOptions } from './nesterov.ts'
export { learningRate } from './schedule.ts'
export type { Moment, Schedule } from './schedule.ts'
