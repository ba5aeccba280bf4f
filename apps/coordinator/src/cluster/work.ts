import { split } from '@convoy/reduction'
import type { Job } from './job.ts'
import type { Vote } from './jury.ts'
import type { Assignment, Member } from './member.ts'
import type { SentParameters } from './parameters.ts'

/** A tree node on its way to being computed, by one worker or more. */
export interface Piece {
  readonly lo: number
  readonly hi: number
  done: boolean
  /** Whether it waits for a worker. */
  waiting: boolean
  readonly holders: Map<Member, Assignment>
  /** Where this is the repetition of a node that was taken already: what was answered so far. */
  readonly votes: Vote[] | undefined
  /** Who gave an answer to this that was not finite. */
  notFinite: string | undefined
}

/** The job at hand, cut into pieces: which of them wait for a worker, and who has the others. */
export class Work {
  job: Job | undefined
  /** The parameters that it is done with. */
  frame: SentParameters | undefined
  /** Counts what may have a piece be done later than was expected: that one is given, or that its worker is over with another. */
  changes = 0
  readonly #pieces = new Map<Assignment, Piece>()
  readonly #open = new Set<Piece>()
  #queue: Piece[] = []
  #finish: ((done: boolean) => void) | undefined
  #nextId = 1

  /** @param finish Told in the end whether all of the job was done. */
  begin(job: Job, frame: SentParameters, finish: (done: boolean) => void): void {
    this.job = job
    this.frame = frame
    this.#finish = finish
  }

  /** Gives up the job at hand; its answers are ignored when they come. */
  abandon(): void {
    if (!this.job) return
    for (const piece of [...this.#open]) this.#release(piece)
    this.#end(false)
  }

  /** Gives up what is open of a node. */
  withdraw(lo: number, hi: number): void {
    for (const piece of [...this.#open]) if (lo <= piece.lo && piece.hi <= hi) this.#release(piece)
    this.#queue = this.#queue.filter((piece) => this.#open.has(piece))
    if (this.job && this.#open.size === 0) this.#end(false)
  }

  #end(done: boolean): void {
    this.#queue.length = 0
    this.job = undefined
    const finish = this.#finish!
    this.#finish = undefined
    finish(done)
  }

  /** Pieces that are not done. */
  get open(): number {
    return this.#open.size
  }

  /** Pieces that wait for a worker. */
  get waiting(): number {
    return this.#queue.length
  }

  pieceOf(assignment: Assignment): Piece | undefined {
    return this.#pieces.get(assignment)
  }

  add(lo: number, hi: number, votes?: Vote[]): Piece {
    const piece: Piece = {
      ...{ lo, hi, done: false, waiting: false, holders: new Map(), votes, notFinite: undefined },
    }
    this.#open.add(piece)
    return piece
  }

  /** Has a piece wait for a worker, beside those that have it. */
  enqueue(piece: Piece | undefined): void {
    if (!piece || piece.done || piece.waiting) return
    piece.waiting = true
    this.#queue.push(piece)
  }

  /** Has all that a worker holds wait for others as well. */
  enqueueAllOf(member: Member): void {
    for (const assignment of member.assignments.values()) this.enqueue(this.#pieces.get(assignment))
  }

  /** The first waiting piece that `may` be done; it waits no longer. */
  take(may: (piece: Piece) => boolean): Piece | undefined {
    const at = this.#queue.findIndex(may)
    if (at < 0) return undefined
    const [piece] = this.#queue.splice(at, 1) as [Piece]
    piece.waiting = false
    return piece
  }

  /** Takes a piece away from whoever has it. */
  reclaim(piece: Piece): void {
    for (const [member, assignment] of [...piece.holders]) {
      member.cancel(assignment)
      this.drop(member, assignment)
    }
  }

  /** Makes two pieces of one that nobody has: the second waits, before all others, and the first is returned. */
  halve(piece: Piece): Piece {
    const { lo, hi } = piece
    const middle = split(lo, hi)
    this.#open.delete(piece)
    const right = this.add(middle, hi)
    right.waiting = true
    this.#queue.unshift(right)
    return this.add(lo, middle)
  }

  /** Takes waiting pieces for done of which `enough` is known. */
  settle(enough: (piece: Piece) => boolean): void {
    for (const piece of this.#queue) {
      if (!piece.done && enough(piece)) this.complete(piece)
      if (!this.job) return
    }
    this.#queue = this.#queue.filter((piece) => !piece.done)
  }

  /** Sends a piece to a worker. */
  assign(member: Member, piece: Piece): void {
    const job = this.job!
    const { lo, hi } = piece
    const { task, epoch, step, size, round } = job
    const id = this.#nextId++
    const count = job.samples(lo, hi)
    const assignment: Assignment = {
      ...{ id, lo, hi, step, samples: count * job.cost, startedAt: performance.now(), late: false, cut: 0 },
    }
    this.changes++
    member.assignments.set(id, assignment)
    this.#pieces.set(assignment, piece)
    piece.holders.set(member, assignment)
    const { pixels, payloads } = job.request(lo, hi, !member.holdsData)
    const encoding = job.encoding(lo, hi)
    // A relay has its sum all at once; what is repeated is compared as a whole.
    assignment.cut = member.relay || piece.votes ? 0 : (job.cut ?? 0)
    member.send(
      {
        ...{ kind: 'work' as const, task, id, epoch, step, lo, hi, count, pixels, encoding },
        ...(size === undefined ? {} : { size }),
        ...(assignment.cut > 0 ? { cut: assignment.cut } : {}),
        ...(round ? { round: { step: round.step, rates: [...round.rates] } } : {}),
      },
      ...payloads,
    )
  }

  /**
   * Forgets an assignment; the worker's next one starts now, unless it does replicas side by side, as a relay. Where the worker is gone,
   * what nobody else has, or only who is late with it, waits for another.
   */
  drop(member: Member, assignment: Assignment): void {
    const first = member.assignments.values().next().value === assignment
    member.assignments.delete(assignment.id)
    if (member.assignments.size > 0) this.changes++
    const piece = this.#pieces.get(assignment)
    this.#pieces.delete(assignment)
    if (first && !(member.relay && this.job?.round)) {
      const next: Assignment | undefined = member.assignments.values().next().value
      if (next) next.startedAt = performance.now()
    }
    if (!piece) return
    piece.holders.delete(member)
    if (member.state !== 'gone') return
    const waitedFor = [...piece.holders].some(([other, held]) => other.state !== 'stalled' && !held.late)
    if (!waitedFor) this.enqueue(piece)
  }

  /** A piece is done, and with the last one the job. */
  complete(piece: Piece): void {
    piece.done = true
    this.#release(piece)
    if (this.#open.size === 0) this.#end(true)
  }

  /** Nobody needs to compute this piece any more. */
  #release(piece: Piece): void {
    this.#open.delete(piece)
    this.reclaim(piece)
  }
}
