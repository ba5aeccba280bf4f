/**
 * Which numbers of a gradient are meant: all of them, those from the cut on, which a backward pass has first, or those before it. A
 * cut of 0 is none: then there is only the whole.
 */
export type Portion = 'whole' | 'tail' | 'head'

/** Elements [first, end) of a portion. */
export function stretchOf(portion: Portion, cut: number, size: number): [first: number, end: number] {
  return [portion === 'tail' ? cut : 0, portion === 'head' ? cut : size]
}
