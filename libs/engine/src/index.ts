export { Arena, isKept } from './arena.ts'
export type { Buffer } from './arena.ts'
export type {
  CompiledModel,
  DropoutMasks,
  Engine,
  GradientResult,
  LabelledImages,
  NumericsClass,
  StoredImages,
  TailListener,
} from './engine.ts'
export { PREDICT_BATCH } from './engine.ts'
export { crossEntropy, targets } from './loss.ts'
export { Masks, maskRule } from './masks.ts'
export type { LeafKey } from './masks.ts'
export { Plans } from './plans.ts'
export type { Purpose, SizedPlan } from './plans.ts'
export { differences, drawLeaf, referenceGradient } from './reference.ts'
export { selectEngine } from './select.ts'
export type { EngineChoice, EngineVendor } from './select.ts'
export { checkGradient } from './trial.ts'
