export { Convergence, guessingCost, verdictText } from './convergence.ts'
export type { Judgement, Reading, Verdict } from './convergence.ts'
export { Window } from './window.ts'
