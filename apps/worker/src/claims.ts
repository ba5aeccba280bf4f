import { ConvoyError } from '@convoy/errors'
import type { CoordinatorMessage, MessageOf } from '@convoy/protocol'

/**
 * Who computes which leaves of a request. The compute thread claims them one by one from the left; the main thread, which
 * hears the coordinator while native code runs, gives some up from the right. Both are in one number that the threads
 * share, the next leaf in its upper half and the end in its lower one, so that no leaf is both claimed and given up.
 */
export type Claims = Int32Array<SharedArrayBuffer>

/** The most leaves of a request; a coordinator asks for 1,024 samples at most. */
const MOST = 0xffff

/** Claims on a request of so many leaves, none of which is claimed yet. Throws E_MESSAGE where they are too many. */
export function openClaims(leaves: number): Claims {
  if (leaves > MOST) {
    throw new ConvoyError('E_MESSAGE', `a request of ${leaves} leaves`, 'Use the same version of Convoy.')
  }
  const claims = new Int32Array(new SharedArrayBuffer(4))
  claims[0] = leaves
  return claims
}

const nextOf = (both: number) => both >>> 16
const endOf = (both: number) => both & MOST

/** Leaves that are neither claimed nor given up. */
export function unclaimed(claims: Claims): number {
  const both = Atomics.load(claims, 0)
  return endOf(both) - nextOf(both)
}

/** Claims the next leaf, or says that none is left. */
export function claim(claims: Claims): boolean {
  for (;;) {
    const both = Atomics.load(claims, 0)
    if (nextOf(both) >= endOf(both)) return false
    if (Atomics.compareExchange(claims, 0, both, both + MOST + 1) === both) return true
  }
}

/**
 * Gives up some of the leaves that are not claimed.
 *
 * @param choose How many, of so many.
 * @returns How many leaves the request has from then on.
 */
export function giveUp(claims: Claims, choose: (unclaimed: number) => number): number {
  for (;;) {
    const both = Atomics.load(claims, 0)
    const given = choose(endOf(both) - nextOf(both))
    if (Atomics.compareExchange(claims, 0, both, both - given) === both) return endOf(both) - given
  }
}

/**
 * How many leaves to leave to another worker, so that the later of the two ends as early as possible; 0 where none of them
 * makes that earlier.
 *
 * @param left Leaves of the request that are not begun.
 * @param ahead Leaves that are computed before these, besides the one at hand, which is taken to be half done.
 */
export function leavesToGive(
  left: number,
  ahead: number,
  {
    leafSeconds,
    thiefLeafSeconds,
    overheadSeconds,
  }: Pick<MessageOf<CoordinatorMessage, 'steal'>, 'leafSeconds' | 'thiefLeafSeconds' | 'overheadSeconds'>,
): number {
  let best = 0
  let earliest = Infinity
  for (let given = 0; given <= left; given++) {
    const mine = (0.5 + ahead + left - given) * leafSeconds
    const end = given === 0 ? mine : Math.max(mine, overheadSeconds + given * thiefLeafSeconds)
    if (end >= earliest) continue
    best = given
    earliest = end
  }
  return best
}
