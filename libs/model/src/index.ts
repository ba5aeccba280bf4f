export { paddedLike, symmetricPadding } from './padding.ts'
export { initialise } from './initialisation.ts'
export type { Initialisation } from './initialisation.ts'
export { layerSpec, modelSpec } from './spec.ts'
export type { LayerSpec, ModelSpec, Padding, Shape } from './spec.ts'
export {
  inputShapes,
  multiplyAdds,
  outputShapes,
  resized,
  slide,
  slides,
  volume,
  windowOf,
} from './shapes.ts'
export type { Slide, Sliding } from './shapes.ts'
export { checkModel, freeze, gradientCut, parameterLayout, trainedLayout, trainedRanges } from './layout.ts'
export type { ParameterLayout, ParameterView, TrainedRange } from './layout.ts'
export { argmax, crossEntropy, probabilities } from './loss.ts'
export { muonKernels } from './muon.ts'
export type { MuonKernel, MuonKernelOptions } from './muon.ts'
export { TrainedParameters } from './trained.ts'
export { buildModel, modelNames } from './zoo.ts'
export type { ModelOptions } from './zoo.ts'
export { standardisedKernels } from './standardised.ts'
export type { StandardisedKernel } from './standardised.ts'
export { copyChannels, scaleOutputs, whitenFirst } from './starts.ts'
export type { Patches } from './starts.ts'
