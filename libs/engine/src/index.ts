export { cudnnGpus } from './cudnn/library.ts'
export type {
  CompiledModel,
  DropoutMasks,
  Engine,
  GradientResult,
  LabelledImages,
  NumericsClass,
  StoredImages,
} from './engine.ts'
export { PREDICT_BATCH } from './engine.ts'
export { Masks } from './masks.ts'
export type { LeafKey } from './masks.ts'
export { loadOnednn, onednnStatus } from './onednn/library.ts'
export type { OnednnStatus } from './onednn/library.ts'
export { measurePeak } from './onednn/peak.ts'
export { createEngine } from './select.ts'
export type { EngineChoice } from './select.ts'
export { tensorflowIsSetUp } from './tfjs/libtensorflow.ts'
export { setUpTensorflow } from './tfjs/setup.ts'
export type { SetupOptions, SetupResult } from './tfjs/setup.ts'
