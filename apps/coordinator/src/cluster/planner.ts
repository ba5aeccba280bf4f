import type { Job } from './job.ts'
import type { Jury } from './jury.ts'
import type { Member } from './member.ts'
import { median } from './pace.ts'
import { cutLeaves, cutNodes, FrameCounts, nodesOf } from './plan.ts'
import type { WorkerRecords } from './records.ts'
import type { Waiting } from './waiting.ts'
import type { Piece, Work } from './work.ts'

/** A worker too slow to be given a share is tried again after so many steps. */
const PROBE_AFTER = 50

/** With more workers than these, leaves are cut without regard to the tree: that takes milliseconds. */
const FEW = 16

/** Chunks of a test that a relay is given at once. */
const RELAY_DEPTH = 16

/** A piece that only one worker holds, and when that is expected to be done with it, in ms of `performance.now()`. */
interface HeldPiece {
  readonly piece: Piece
  readonly samples: number
  readonly at: number
}

/** No piece is expected to be done later than this, and none has fewer samples. */
interface Bounds {
  /** Of the work that they are of: `Work.changes`. */
  readonly changes: number
  readonly latest: number
  readonly fewest: number
}

/** Decides who computes what: a job's shares when it begins, and then what each worker does next that has nothing to do. */
export class Planner {
  readonly #members: ReadonlyMap<string, Member>
  readonly #records: WorkerRecords
  readonly #jury: Jury
  readonly #work: Work
  readonly #waiting: Waiting
  #frames = new FrameCounts(1, 1)
  #bounds: Bounds = { changes: -1, latest: 0, fewest: 0 }

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
    else this.add(job.first ?? 0, (job.first ?? 0) + job.units)
    this.dispatch()
  }

  /** Has a node wait for whoever has nothing to do. */
  add(lo: number, hi: number): void {
    this.#work.enqueue(this.#work.add(lo, hi))
  }

  /** Gives work to whoever has none. */
  dispatch(): void {
    const work = this.#work
    // Of a node that only one worker answered, nobody else may be there to verify it.
    work.settle(({ votes }) => votes?.length === 1 && !this.#jury.fresh(votes))
    const { job } = work
    if (!job) return
    // Of a test, a relay is given what keeps its workers busy.
    const depthOf = ({ relay }: Member) => (job.planned ? 1 : relay ? RELAY_DEPTH : 2)
    let someone = false
    const idle: Member[] = []
    for (const member of this.#members.values()) {
      const busy = member.assignments.size >= depthOf(member)
      // With a thousand workers, those that have enough to do are passed over.
      if ((busy && someone) || !this.#eligible(member)) continue
      someone = true
      if (!busy) idle.push(member)
    }
    this.#waiting.look(someone)
    const bySize = (a: Member, b: Member) => a.assignments.size - b.assignments.size
    idle.sort(bySize)
    // Who is late with what is looked up once for all that are idle.
    let found: readonly HeldPiece[] | undefined
    const held = () => (found ??= this.#held())
    for (let member = idle.shift(); member; member = idle.shift()) {
      const piece = this.#next(member, job, idle.length + 1) ?? this.#overtake(member, job, held)
      if (!piece) continue
      work.assign(member, piece)
      found = undefined
      if (member.assignments.size < depthOf(member)) {
        idle.push(member)
        idle.sort(bySize)
      }
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
    // Fast ones first: large shares in front are whole nodes more often.
    const ordered = members.toSorted((a, b) => rateOf(b, job, usual) - rateOf(a, job, usual))
    const shares = this.#byTree(job, ordered) ?? bySpeed(job, ordered, usual)
    probe(ordered, shares)
    const { first = 0 } = job
    let lo = 0
    ordered.forEach((member, i) => {
      const hi = lo + shares[i]
      for (const [from, to] of nodesFor(member, job, lo, hi))
        this.#work.assign(member, this.#work.add(first + from, first + to))
      lo = hi
    })
  }

  /** Each worker's leaves, by the speeds of its engine and its link; undefined where these are not known, or workers are many. */
  #byTree(job: Job, members: readonly Member[]): number[] | undefined {
    if (members.length > FEW) return undefined
    const samples = job.samples(job.first ?? 0, (job.first ?? 0) + 1) * job.cost
    const speeds = members.flatMap(({ relay, pace: { speed } }) =>
      // Of a relay's replicas, what they take beyond their part of what it can do is not the link's.
      speed ? [{ leaf: samples * speed.sample, frame: relay && job.round ? 0 : speed.frame }] : [],
    )
    if (speeds.length < members.length) return undefined
    const { units, largest } = job
    if (this.#frames.units !== units || this.#frames.largest !== largest)
      this.#frames = new FrameCounts(units, largest)
    return cutNodes(this.#frames, speeds)
  }

  /**
   * Work that nobody has, for an idle worker.
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
    if (!piece) return undefined
    const largest = largestOf(member, job)
    const tooLarge = ({ lo, hi }: Piece) => hi - lo > largest
    // What a relay is late with can only be taken from it.
    if (tooLarge(piece)) work.reclaim(piece)
    // Too large, or fewer pieces than hands: halve it. A piece that someone still computes stays whole.
    while (
      piece.holders.size === 0 &&
      !piece.votes &&
      piece.hi - piece.lo > 1 &&
      (tooLarge(piece) || (piece.notFinite === undefined && work.waiting + 1 < idle))
    ) {
      piece = work.halve(piece)
    }
    return piece
  }

  /** Tells what each worker has, and when it is expected to be done with it, in ms of `performance.now()`. */
  #eachHeld(tell: (piece: Piece, samples: number, at: number) => void): void {
    for (const other of this.#members.values()) {
      let at = 0
      for (const assignment of other.assignments.values()) {
        const { samples, startedAt } = assignment
        at = Math.max(at, startedAt) + 1000 * (other.pace.expected(samples) ?? 0)
        tell(this.#work.pieceOf(assignment)!, samples, at)
      }
    }
  }

  #lookAhead(): Bounds {
    const { changes } = this.#work
    if (this.#bounds.changes === changes) return this.#bounds
    let [latest, fewest] = [-Infinity, Infinity]
    this.#eachHeld((_, samples, at) => {
      latest = Math.max(latest, at)
      fewest = Math.min(fewest, samples)
    })
    return (this.#bounds = { changes, latest, fewest })
  }

  /** The pieces that only one worker holds, those that are expected to be finished last in front. */
  #held(): HeldPiece[] {
    const pieces: HeldPiece[] = []
    this.#eachHeld((piece, samples, at) => {
      if (piece.holders.size === 1 && !piece.waiting && !piece.votes) pieces.push({ piece, samples, at })
    })
    return pieces.sort((a, b) => b.at - a.at)
  }

  /** The piece that its holder is expected to finish last, if this worker would finish it sooner. */
  #overtake(member: Member, job: Job, held: () => readonly HeldPiece[]): Piece | undefined {
    if (member.assignments.size > 0) return undefined
    const largest = largestOf(member, job)
    const { pace } = member
    // A step is soon over, but a new worker would be idle for the rest of a round: it is taken to be as fast as others.
    const usual = job.round && !pace.known ? usualRate([...this.#members.values()]) : undefined
    const expected = (samples: number) => (usual === undefined ? pace.expected(samples) : samples / usual)
    if (expected(1) === undefined) return undefined
    const now = performance.now()
    const within = (samples: number) => now + 1000 * expected(samples)!
    // At each answer all idle workers look, so with a thousand of these none may look through all pieces: none is late where the latest is not.
    const { latest, fewest } = this.#lookAhead()
    const soonest = within(fewest)
    if (latest <= soonest) return undefined
    for (const { piece, samples, at } of held()) {
      if (at <= soonest) return undefined
      if (piece.hi - piece.lo <= largest && at > within(samples)) return piece
    }
    return undefined
  }
}

/** The largest node that a worker is given whole. */
const largestOf = ({ relay }: Member, { largest, largestSum = largest }: Job) =>
  relay ? largestSum : largest

/** The nodes that a worker is given of leaves [lo, hi). */
function* nodesFor(member: Member, job: Job, lo: number, hi: number): Generator<readonly [number, number]> {
  const { units, leastSum = 0 } = job
  for (const [from, to] of nodesOf(lo, hi, { units, largest: largestOf(member, job) })) {
    if (to - from < leastSum) yield* nodesOf(from, to, job)
    else yield [from, to]
  }
}

/** A worker's samples a second from request to answer; those of a relay in a round from what it says, since a few replicas leave it half idle. */
function rateOf({ relay, pace }: Member, { round }: Job, usual: number | undefined): number {
  return relay && round && pace.speed ? 1 / pace.speed.sample : pace.rate(usual ?? 1)
}

/** Each worker's leaves, by `rateOf`. */
function bySpeed(job: Job, members: readonly Member[], usual: number | undefined): number[] {
  // One that is new warms up, and may be slow: with one leaf it does not keep the others waiting.
  const most = (member: Member) => (usual !== undefined && !member.pace.known ? 1 : Infinity)
  return cutLeaves(
    job.units,
    members.map((member) => rateOf(member, job, usual)),
    members.map(most),
  )
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
