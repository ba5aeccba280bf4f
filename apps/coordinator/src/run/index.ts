export { CheckpointStore, readCheckpoint, type Checkpoint } from './checkpoints.ts'
export { openEvaluation, type Evaluated } from './evaluate.ts'
export { checkpointWeights, readAnyWeights } from './initial.ts'
export { modelFor, openRun, readRunConfig, type DoneEvent, type Run } from './run.ts'
