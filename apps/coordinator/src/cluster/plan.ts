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

/** The most places to cut at that are looked at; more cost more time than they save. */
const PLACES = 64

/** Where a batch may be cut, and how many frames go up from between two such places. */
export class FrameCounts {
  readonly units: number
  readonly largest: number
  /** Of the last place, which is the end. */
  readonly last: number
  readonly #each: number
  readonly #counts: readonly Uint16Array[]

  /**
   * @param units Leaves of the batch.
   * @param largest The most leaves of a node.
   */
  constructor(units: number, largest: number) {
    this.units = units
    this.largest = largest
    this.#each = 2 ** Math.max(0, Math.ceil(Math.log2(units / PLACES)))
    this.last = Math.ceil(units / this.#each)
    this.#counts = Array.from({ length: this.last + 1 }, (_, lo) =>
      Uint16Array.from({ length: this.last + 1 }, (_, hi) =>
        lo < hi ? [...nodesOf(this.leaf(lo), this.leaf(hi), this)].length : 0,
      ),
    )
  }

  /** The leaf that a place stands before. */
  leaf(place: number): number {
    return Math.min(this.units, place * this.#each)
  }

  /** How many frames the leaves between two places are. */
  between(lo: number, hi: number): number {
    return this.#counts[lo][hi]
  }
}

/** What is known of a worker's speed, in seconds. */
export interface Speed {
  /** A leaf's gradient. */
  readonly leaf: number
  /** A frame on its way, either way. */
  readonly frame: number
}

/** Cuts that end so much later than the earliest are as good, and the one with the fewest frames is taken. */
const AS_GOOD = 1.02

/**
 * Cuts the leaves of a batch among workers with regard to the tree: a share that is no whole node goes up in several frames, each as large as a
 * gradient. A worker is taken to need one frame's time for the parameters, then that of its leaves and of its frames.
 *
 * Finds, by dynamic programming over the places to cut at, when the last worker is done at the earliest; and then, of the cuts that end about
 * then, the one with the fewest frames.
 *
 * @param frames Of a batch of more than 64 leaves, places are at multiples of a power of two.
 * @param speeds Of each worker, in the order of their shares.
 * @returns How many leaves each worker gets; they add up to those of the batch.
 */
export function cutNodes(frames: FrameCounts, speeds: readonly Speed[]): number[] {
  const seconds = ({ leaf, frame }: Speed, lo: number, hi: number) =>
    lo === hi ? 0 : (frames.leaf(hi) - frames.leaf(lo)) * leaf + (frames.between(lo, hi) + 1) * frame
  const end = cut(frames.last, speeds, seconds, Math.max).cost
  const fewest = (speed: Speed, lo: number, hi: number) =>
    seconds(speed, lo, hi) > AS_GOOD * end ? Infinity : frames.between(lo, hi)
  const { cuts } = cut(frames.last, speeds, fewest, (a, b) => a + b)
  return cuts.map((hi, i) => frames.leaf(hi) - frames.leaf(cuts[i - 1] ?? 0))
}

/** The places at which workers' shares end so that what these cost, joined, is least. */
function cut(
  places: number,
  speeds: readonly Speed[],
  costOf: (speed: Speed, lo: number, hi: number) => number,
  join: (a: number, b: number) => number,
): { cost: number; cuts: number[] } {
  // After each worker: the least cost of the places before `hi`, and where its share begins then.
  let costs = Array.from({ length: places + 1 }, (_, hi) => (hi === 0 ? 0 : Infinity))
  const begins = speeds.map((speed) => {
    const before = costs
    const begin = new Array<number>(places + 1).fill(0)
    costs = before.map((_, hi) => {
      let least = Infinity
      for (let lo = 0; lo <= hi; lo++) {
        const cost = before[lo] === Infinity ? Infinity : join(before[lo], costOf(speed, lo, hi))
        if (cost < least) [least, begin[hi]] = [cost, lo]
      }
      return least
    })
    return begin
  })
  const cuts: number[] = []
  let hi = places
  for (const begin of begins.toReversed()) {
    cuts.unshift(hi)
    hi = begin[hi]
  }
  return { cost: costs[places], cuts }
}
