/**
 * Cuts the leaves of a batch among workers so that the last one is done as early as possible.
 *
 * Leaf by leaf goes to whoever would finish it first, which is optimal for equal pieces on machines of given speeds.
 * The cut decides who computes, never what: any cut gives the same bits.
 *
 * @param leaves How many equal pieces there are.
 * @param rates Each worker's speed, in any common unit, all above zero.
 * @returns How many leaves each worker gets; they add up to `leaves`.
 */
export function cutLeaves(leaves: number, rates: readonly number[]): number[] {
  const shares = rates.map(() => 0)
  for (let leaf = 0; leaf < leaves; leaf++) {
    let best = 0
    for (let i = 1; i < rates.length; i++) {
      if ((shares[i] + 1) / rates[i] < (shares[best] + 1) / rates[best]) best = i
    }
    shares[best]++
  }
  return shares
}
