/**
 * The one fixed binary tree in which the leaves of a batch are summed. A node is a range of leaves [lo, hi); it splits at
 * lo + the largest power of two below its size, so that a node's shape depends on nothing but its size and every aligned
 * block of a power of two is a node of its own.
 */

/** Leaves [lo, hi). */
export type Node = readonly [lo: number, hi: number]

/** Where a node of two leaves or more splits. */
export function split(lo: number, hi: number): number {
  return lo + 2 ** (31 - Math.clz32(hi - lo - 1))
}

/** Whether [lo, hi) is a node of the tree over `leaves` leaves. */
export function isNode(lo: number, hi: number, leaves: number): boolean {
  let from = 0
  let to = leaves
  while (from <= lo && hi <= to && lo < hi) {
    if (from === lo && to === hi) return true
    if (to - from < 2) return false
    const middle = split(from, to)
    if (hi <= middle) to = middle
    else if (lo >= middle) from = middle
    else return false
  }
  return false
}

/** The fewest nodes that together are the leaves [lo, hi), from left to right. */
export function cover(lo: number, hi: number, leaves: number): Node[] {
  const nodes: Node[] = []
  const visit = (from: number, to: number): void => {
    if (hi <= from || to <= lo) return
    if (lo <= from && to <= hi) {
      nodes.push([from, to])
      return
    }
    const middle = split(from, to)
    visit(from, middle)
    visit(middle, to)
  }
  if (lo < hi) visit(0, leaves)
  return nodes
}
