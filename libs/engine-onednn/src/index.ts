export { createEngine } from './create.ts'
export { onednnStatus } from './library.ts'
export type { OnednnStatus } from './library.ts'
export { measurePeak } from './peak.ts'
