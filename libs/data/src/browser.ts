/** What the page uses too: nothing here needs Node.js. */
export { ImageFiller } from './fill.ts'
export { preprocessingSpec } from './preprocessing.ts'
export type { PreprocessingSpec } from './preprocessing.ts'
