import { cover, split } from '@convoy/reduction'

/**
 * Cuts the leaves of a batch among workers so that the last one is done as early as possible.
 *
 * Leaf by leaf goes to whoever would finish it first, which is optimal for equal pieces on machines of given speeds.
 * The cut decides who computes, never what: any cut gives the same bits.
 *
 * @param leaves How many equal pieces there are.
 * @param rates Each worker's speed, in any common unit, all above zero.
 * @param most The most leaves of each worker; of one at least it must be Infinity.
 * @returns How many leaves each worker gets; they add up to `leaves`.
 */
export function cutLeaves(
  leaves: number,
  rates: readonly number[],
  most: readonly number[] = rates.map(() => Infinity),
): number[] {
  const shares = rates.map(() => 0)
  const ends = (i: number) => (shares[i] < most[i] ? (shares[i] + 1) / rates[i] : Infinity)
  for (let leaf = 0; leaf < leaves; leaf++) {
    let best = 0
    for (let i = 1; i < rates.length; i++) if (ends(i) < ends(best)) best = i
    shares[best]++
  }
  return shares
}

/** The fewest tree nodes that cover leaves [lo, hi) of `units`, none of more than `largest` leaves. */
export function* nodesOf(
  lo: number,
  hi: number,
  job: { readonly units: number; readonly largest: number },
): Generator<readonly [number, number]> {
  for (const [from, to] of cover(lo, hi, job.units)) {
    if (to - from <= job.largest) yield [from, to]
    else {
      const middle = split(from, to)
      yield* nodesOf(from, middle, job)
      yield* nodesOf(middle, to, job)
    }
  }
}
