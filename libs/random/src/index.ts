export { threefry2x32 } from './threefry.ts'
export { Purpose, RandomStream } from './stream.ts'
