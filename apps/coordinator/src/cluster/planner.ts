import type { Job } from './job.ts'
import type { Jury } from './jury.ts'
import type { Member } from './member.ts'
import { median } from './pace.ts'
import { cutLeaves, nodesOf } from './plan.ts'
import type { WorkerRecords } from './records.ts'
import type { Waiting } from './waiting.ts'
import type { Piece, Work } from './work.ts'

/** A worker too slow to be given a share is tried again after so many steps. */
const PROBE_AFTER = 50

/** Decides who computes what: a job's shares when it begins, and then what each worker does next that has nothing to do. */
export class Planner {
  readonly #members: ReadonlyMap<string, Member>
  readonly #records: WorkerRecords
  readonly #jury: Jury
  readonly #work: Work
  readonly #waiting: Waiting

  constructor(
    members: ReadonlyMap<string, Member>,
    records: WorkerRecords,
    jury: Jury,
    work: Work,
    waiting: Waiting,
  ) {
    this.#members = members
    this.#records = records
    this.#jury = jury
    this.#work = work
    this.#waiting = waiting
  }

  /** Hands out a job that has just begun. */
  begin(job: Job): void {
    const members = job.planned ? [...this.#members.values()].filter((member) => this.#eligible(member)) : []
    if (members.length > 0) this.#share(job, members)
    else this.#work.enqueue(this.#work.add(0, job.units))
    this.dispatch()
  }

  /** Gives work to whoever has none. */
  dispatch(): void {
    const work = this.#work
    // Of a node that only one worker answered, nobody else may be there to verify it.
    work.settle(({ votes }) => votes?.length === 1 && !this.#jury.fresh(votes))
    const { job } = work
    if (!job) return
    const depth = job.planned ? 1 : 2
    let someone = false
    const idle: Member[] = []
    for (const member of this.#members.values()) {
      if (!this.#eligible(member)) continue
      someone = true
      if (member.assignments.size < depth) idle.push(member)
    }
    this.#waiting.look(someone)
    while (idle.length > 0) {
      idle.sort((a, b) => a.assignments.size - b.assignments.size)
      const member = idle.shift()!
      const piece = this.#next(member, job, idle.length + 1)
      if (!piece) continue
      work.assign(member, piece)
      if (member.assignments.size < depth) idle.push(member)
    }
  }

  /** Whether a worker can be given work of the job at hand now: it has its parameters, or they are on their way. */
  #eligible(member: Member): boolean {
    const { job, frame } = this.#work
    if (member.state !== 'ready' || !frame || !job) return false
    if (this.#records.aside(member.name)) return false
    return member.offerParameters(frame, () => this.dispatch())
  }

  /** Cuts a batch among workers by their measured speed and hands all of it out. */
  #share(job: Job, members: readonly Member[]): void {
    const usual = usualRate(members)
    // One that is new warms up, and may be slow: with one leaf it does not keep the others waiting.
    const most = (member: Member) => (usual !== undefined && !member.pace.known ? 1 : Infinity)
    const shares = cutLeaves(
      job.units,
      members.map((member) => member.pace.rate(usual ?? 1)),
      members.map(most),
    )
    probe(members, shares)
    let lo = 0
    members.forEach((member, i) => {
      const hi = lo + shares[i]
      for (const [from, to] of nodesOf(lo, hi, job)) this.#work.assign(member, this.#work.add(from, to))
      lo = hi
    })
  }

  /**
   * What an idle worker should do: work that nobody has, or else work that it would finish before its holder.
   *
   * @param idle How many are idle, this one included.
   */
  #next(member: Member, job: Job, idle: number): Piece | undefined {
    const work = this.#work
    let piece = work.take(
      ({ holders, votes, notFinite }) =>
        !holders.has(member) &&
        (!votes || this.#jury.mayVote(votes, member)) &&
        (notFinite === undefined || this.#jury.mayJudge(notFinite, member)),
    )
    if (!piece) return this.#overtake(member, job)
    // Too large, or fewer pieces than hands: halve it. A piece that someone still computes stays whole.
    while (
      piece.holders.size === 0 &&
      !piece.votes &&
      piece.notFinite === undefined &&
      piece.hi - piece.lo > 1 &&
      (piece.hi - piece.lo > job.largest || work.waiting + 1 < idle)
    ) {
      piece = work.halve(piece)
    }
    return piece
  }

  /** The piece that its only holder is expected to finish last, if this worker would finish it sooner. */
  #overtake(member: Member, { round }: Job): Piece | undefined {
    if (member.assignments.size > 0) return undefined
    // A step is soon over, but a new worker would be idle for the rest of a round: it is taken to be as fast as others.
    const usual = round && !member.pace.known ? usualRate([...this.#members.values()]) : undefined
    const expected = (samples: number) => (usual ? samples / usual : member.pace.expected(samples))
    if (expected(1) === undefined) return undefined
    const now = performance.now()
    let best: Piece | undefined
    let latest = 0
    for (const other of this.#members.values()) {
      let at = 0
      for (const assignment of other.assignments.values()) {
        const piece = this.#work.pieceOf(assignment)!
        at = Math.max(at, assignment.startedAt) + 1000 * (other.pace.expected(assignment.samples) ?? 0)
        if (piece.holders.size > 1 || piece.waiting || piece.votes) continue
        const mine = now + 1000 * expected(assignment.samples)!
        if (at > mine && at > latest) {
          best = piece
          latest = at
        }
      }
    }
    return best
  }
}

/** The rate in the middle of those that are known; undefined where none is. */
function usualRate(members: readonly Member[]): number | undefined {
  const known = members.filter(({ pace }) => pace.known).map(({ pace }) => pace.rate(1))
  return known.length > 0 ? median(known) : undefined
}

/** Gives a leaf of the largest share to each worker that had none for long, since it may have become faster. */
function probe(members: readonly Member[], shares: number[]): void {
  members.forEach((member, i) => {
    member.idleSteps = shares[i] === 0 ? member.idleSteps + 1 : 0
    if (member.idleSteps < PROBE_AFTER) return
    const largest = shares.indexOf(Math.max(...shares))
    if (shares[largest] < 2) return
    shares[largest]--
    shares[i] = 1
    member.idleSteps = 0
  })
}
