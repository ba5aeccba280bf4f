export { Convergence, guessingCost, verdictText } from './convergence.ts'
export type { Judgement, Reading, Verdict } from './convergence.ts'
export { epochOfAccuracy } from './reach.ts'
export { Window } from './window.ts'
