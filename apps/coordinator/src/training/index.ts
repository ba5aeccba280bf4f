export { Evaluation, scoreOf, type Score } from './evaluation.ts'
export { Training, parametersSha256, type Rewind, type State, type Test } from './training.ts'
