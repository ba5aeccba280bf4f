import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import { cover, split } from '@convoy/reduction'
import { FOR_WORKERS, LEFT, type Report } from '../events.ts'
import { agreed, Jury, voteOf, type Vote } from './jury.ts'
import { Member, type Assignment } from './member.ts'
import { median, type Pace } from './pace.ts'
import type { ParameterFrame } from './parameters.ts'
import { cutLeaves } from './plan.ts'
import { banned, WorkerRecords } from './records.ts'
import { Tally } from './tally.ts'

/** How often deadlines are looked at, in milliseconds. */
const TICK = 100
/** Where nothing is known of a worker, it may take this many times what the slowest known one would. */
const UNKNOWN_PATIENCE = 10
/** And so many seconds where nothing is known of anyone yet, or until it has compiled the model. */
const FIRST_PATIENCE = 60
/** A worker too slow to be given a share is tried again after so many steps. */
const PROBE_AFTER = 50

type Gradient = MessageOf<WorkerMessage, 'gradient'>
type Answer = Gradient | MessageOf<WorkerMessage, 'evaluation'>

/** One pass over the workers: the gradient of a batch, or the evaluation of a test set. */
export interface Job {
  readonly task: 'gradient' | 'evaluate'
  readonly epoch: number
  readonly step: number
  /** Leaves of the batch, or chunks of the test set. */
  readonly units: number
  /** The largest node that is handed out whole. */
  readonly largest: number
  /** Whether all is planned at once by measured speed (a batch) or handed out bit by bit (a test set). */
  readonly planned: boolean
  /** How many samples leaves [lo, hi) have. */
  samples(lo: number, hi: number): number
  /** How the answer to [lo, hi) travels. */
  encoding(lo: number, hi: number): 'float32' | 'bf16'
  /** What a worker needs to compute [lo, hi): the rest of the `work` message, and its payloads. */
  request(lo: number, hi: number, withSamples: boolean): WorkRequest
  /** Takes an answer. Throws a `ConvoyError` where it is not usable; then nothing is taken. */
  accept(answer: Answer, payload: Uint8Array, worker: string): void
}

export interface WorkRequest {
  readonly pixels: 'uint8' | 'float32' | 'none'
  readonly payloads: readonly ArrayBufferView[]
}

/** A tree node on its way to being computed, by one worker or more. */
interface Piece {
  readonly lo: number
  readonly hi: number
  done: boolean
  /** Whether it waits for a worker in `#orphans`. */
  waiting: boolean
  readonly holders: Map<Member, Assignment>
  /** Where this is the repetition of a node that was taken already: what was answered so far. */
  readonly votes?: Vote[]
  /** Who gave an answer to this that was not finite. */
  notFinite?: string
}

export interface ClusterOptions {
  /** Share of the gradients that a second worker repeats. */
  readonly verify?: number
  /** Whether the run began in another process, so that it is not known here who took part before. */
  readonly resumed?: boolean
}

/**
 * The workers, and the one job that they are doing. Work that a worker loses, or is late with, goes to others; the first
 * answer wins, since all answers to a node are the same bits.
 */
export class Cluster {
  readonly #members = new Map<string, Member>()
  readonly #records = new WorkerRecords()
  readonly #jury = new Jury(this.#members, this.#records)
  readonly #report: Report
  #job: Job | undefined
  #frame: ParameterFrame | undefined
  #pieces = new Map<Assignment, Piece>()
  #open = new Set<Piece>()
  #orphans: Piece[] = []
  #finish: ((done: boolean) => void) | undefined
  #nextId = 1
  #saidWaiting = false
  /** Who answered the job at hand last, and when anyone else did, in ms: for `Tally.waitedFor`. */
  #lastAnswer: { member: Member; at: number; othersAt: number | undefined } | undefined
  #closed = false
  #lastTick = performance.now()
  readonly #ticker: NodeJS.Timeout
  /** Engine time of each worker whose answers the job at hand took, in seconds. */
  readonly engineSeconds = new Map<Member, number>()
  /** Milliseconds of the job at hand in which there was no worker to compute it. */
  waited = 0
  #waitingSince: number | undefined
  /** Samples whose gradients were computed but not needed: answers that came second. */
  wasted = 0

  /** Called where a worker was found to give wrong gradients, with the first step that may hold one of them. */
  onDishonest: (since: number) => void = () => {}
  /** Called where the gradient of a step is not finite, and no single worker is to blame. */
  onNotFinite: () => void = () => {}
  readonly #verify: number
  readonly #resumed: boolean

  constructor(report: Report, { verify = 0, resumed = false }: ClusterOptions = {}) {
    this.#report = report
    this.#verify = verify
    this.#resumed = resumed
    this.#ticker = setInterval(() => this.#tick(), TICK)
    this.#ticker.unref()
  }

  get size(): number {
    return this.#members.size
  }

  /** What every worker did that ever joined, by name. */
  get tallies(): ReadonlyMap<string, Tally> {
    return this.#records.tallies
  }

  /** Whether a worker's answers were refused so often that it gets no work now. */
  setAside(member: Member): boolean {
    return this.#records.aside(member.name)
  }

  get members(): Iterable<Member> {
    return this.#members.values()
  }

  /** Bytes to and from all workers since the coordinator started. */
  get traffic(): { sent: number; received: number } {
    return this.#records.traffic
  }

  /** The record of a worker that was here before under this name; a second process with the name gets another. */
  nameFor(wanted: string, instance: string): { name: string; pace: Pace | undefined; tally: Tally } {
    let name = wanted
    for (let n = 2; this.#members.has(name) && this.#members.get(name)!.instance !== instance; n++) {
      name = `${wanted}-${n}`
    }
    const { pace, tally } = this.#records.of(name) ?? { pace: undefined, tally: new Tally() }
    return { name, pace, tally }
  }

  /** Takes a worker in. One that reconnects replaces its own older connection. */
  join(member: Member): void {
    const older = this.#members.get(member.name)
    if (older) {
      older.socket.terminate()
      this.leave(older, 'reconnected')
    }
    this.#members.set(member.name, member)
    this.#records.join(member)
    this.#report({
      event: 'workerJoined',
      worker: member.name,
      engine: member.engine,
      workers: this.#members.size,
    })
  }

  /** The worker compiled the model and can be given work. */
  ready(member: Member): void {
    if (member.state === 'compiling') {
      member.state = 'ready'
      if (member.compilesLate) this.#report({ event: 'workerRecovered', worker: member.name })
    }
    this.#dispatch()
  }

  /** The worker goes on its own will: it finishes what it is at, the rest goes to others at once. */
  leaving(member: Member, finishing: number | undefined): void {
    member.state = 'leaving'
    for (const assignment of [...member.assignments.values()]) {
      if (assignment.id === finishing) continue
      const piece = this.#pieces.get(assignment)
      member.cancel(assignment)
      this.#drop(member, assignment)
      this.#orphan(piece)
    }
    this.#dispatch()
  }

  /** The worker's connection is gone. */
  leave(member: Member, reason: string): void {
    if (member.state === 'gone') return
    if (member.state === 'leaving') reason = LEFT
    member.state = 'gone'
    if (this.#members.get(member.name) === member) this.#members.delete(member.name)
    for (const assignment of [...member.assignments.values()]) this.#drop(member, assignment)
    // While answers are verified, what anyone gave may still turn out to be wrong.
    this.#records.forget((name) => this.#members.has(name), this.#verify > 0)
    if (this.#closed) return
    this.#report({ event: 'workerLeft', worker: member.name, reason, workers: this.#members.size })
    if (this.#members.size === 0) this.#saidWaiting = false
    this.#dispatch()
  }

  /**
   * Has the workers do one job on these parameters; waits while there is no worker. Resolves with true when every unit
   * is done, and with false where the job was abandoned.
   */
  compute(job: Job, frame: ParameterFrame): Promise<boolean> {
    return new Promise((resolve) => {
      this.#job = job
      this.#frame = frame
      this.#lastAnswer = undefined
      this.waited = 0
      // A job that was abandoned may have waited, too.
      this.#waitingSince = undefined
      this.engineSeconds.clear()
      this.#finish = resolve
      if (job.planned) this.#plan(job)
      else this.#orphan(this.#piece(0, job.units))
      this.#dispatch()
    })
  }

  /**
   * Begins to send parameters that are still being computed to whoever can take them.
   *
   * @returns To be called as the frame fills, with the number of values that are complete; in one go, to the end.
   */
  broadcast(frame: ParameterFrame): (complete: number) => void {
    const members = [...this.#members.values()].filter(
      (member) => member.state === 'ready' && member.beginParameters(frame, () => this.#dispatch()),
    )
    return (complete) => {
      const part = frame.next(complete)
      for (const member of members) member.sendParameters(part, complete === frame.values.length)
    }
  }

  /** Gives up the job at hand; its answers are ignored when they come. */
  abandon(): void {
    if (!this.#job) return
    for (const piece of [...this.#open]) this.#release(piece)
    this.#end(false)
  }

  /** Takes a worker's answer, or refuses it and tells the worker why. */
  answer(member: Member, answer: Answer, payload: Uint8Array): void {
    const assignment = member.assignments.get(answer.id)
    if (!assignment) {
      if (member.wasCancelled(answer.id)) {
        this.wasted += answer.kind === 'gradient' ? answer.count : 0
        this.#recover(member)
      } else {
        this.refuse(
          member,
          new ConvoyError('E_NOT_ASKED', `answer ${answer.id} was not asked for`, 'Nothing.'),
        )
      }
      return
    }
    const piece = this.#pieces.get(assignment)!
    const seconds = (performance.now() - assignment.startedAt) / 1000
    this.#drop(member, assignment)
    try {
      if (answer.step !== assignment.step || answer.lo !== piece.lo || answer.hi !== piece.hi) {
        throw new ConvoyError(
          'E_NOT_ASKED',
          `answer ${answer.id} is about step ${answer.step} [${answer.lo}, ${answer.hi}), not ${assignment.step} [${piece.lo}, ${piece.hi})`,
          'Nothing.',
        )
      }
      if (piece.votes) piece.votes.push(voteOf(member.name, answer as Gradient, payload))
      else this.#job!.accept(answer, payload, member.name)
    } catch (thrown) {
      this.#refuseAnswer(member, asConvoyError(thrown), answer.id, piece)
      return
    }
    const step = answer.kind === 'gradient' ? answer.step : undefined
    this.#records.took(member.name, this.#resumed && step !== undefined ? 0 : step)
    this.engineSeconds.set(member, (this.engineSeconds.get(member) ?? 0) + answer.seconds)
    // A first answer includes warming up; it would make a poor measure if it stayed the only one.
    member.pace.add(assignment.samples, seconds)
    this.#tallyAnswer(member, answer)
    this.#recover(member)
    if (piece.votes) this.#count(piece, piece.votes)
    else {
      const failed = piece.notFinite === undefined ? undefined : this.#members.get(piece.notFinite)
      if (failed) this.#strike(failed, 'E_NOT_FINITE', 'what it gave as NaN or Inf is finite')
      if (answer.kind === 'gradient' && Math.random() < this.#verify)
        this.#repeat(piece, voteOf(member.name, answer, payload))
      this.#complete(piece)
    }
    this.#dispatch()
  }

  /** Has a node that was taken computed by another worker too. */
  #repeat({ lo, hi }: Piece, vote: Vote): void {
    const piece: Piece = { lo, hi, done: false, waiting: false, holders: new Map(), votes: [vote] }
    this.#open.add(piece)
    this.#orphan(piece)
  }

  /** Looks at the answers to a node that is verified: where two differ, a third decides, or else they are asked again. */
  #count(piece: Piece, votes: readonly Vote[]): void {
    const step = this.#job!.step
    const right = agreed(votes)
    if (right === undefined) {
      const { lo, hi } = piece
      if (votes.length === 2) {
        this.#report({ event: 'disputed', workers: votes.map(({ worker }) => worker), step, lo, hi })
      }
      this.#orphan(piece)
      return
    }
    const wrong = new Set(votes.filter(({ digest }) => digest !== right).map(({ worker }) => worker))
    this.#complete(piece)
    let since = Infinity
    for (const worker of wrong) {
      since = Math.min(since, this.#records.ban(worker) ?? Infinity)
      this.#report({ event: 'dishonest', worker, step, lo: piece.lo, hi: piece.hi })
      const member = this.#members.get(worker)
      if (member) this.#expel(member)
    }
    if (since < Infinity) this.onDishonest(since)
  }

  /** Sends a worker away for good. */
  #expel(member: Member): void {
    const { message, remedy } = banned()
    member.send({ kind: 'goodbye', code: 'E_DISHONEST', message, remedy })
    member.socket.close(1008)
    this.leave(member, 'it gave wrong gradients')
  }

  /** Throws E_DISHONEST for a worker that was found to give wrong gradients, by its name or process. */
  checkBan(hello: { name: string; instance: string }): void {
    this.#records.checkBan(hello)
  }

  /**
   * Refuses an answer. For one that is not finite nobody is blamed before somebody else tried too: where both fail, and
   * one of them has given good answers before (as long as anyone here has), the training has diverged.
   */
  #refuseAnswer(member: Member, error: ConvoyError, id: number, piece: Piece): void {
    if (error.code !== 'E_NOT_FINITE') this.refuse(member, error, id)
    else {
      const { code, message } = error
      member.send({ kind: 'refused', code, message, id })
      this.#report({ event: 'refused', worker: member.name, code, message })
      const before = piece.notFinite
      piece.notFinite = member.name
      if (before !== undefined && this.#jury.convicts(before, member)) return this.onNotFinite()
    }
    this.#orphan(piece)
    this.#dispatch()
  }

  /** The worker says that it could not do something, or that it dropped what was cancelled. */
  failed(member: Member, message: MessageOf<WorkerMessage, 'failed'>): void {
    const assignment = member.assignments.get(message.id)
    if (!assignment) {
      if (member.wasCancelled(message.id)) this.#recover(member)
      return
    }
    const piece = this.#pieces.get(assignment)
    this.#drop(member, assignment)
    this.#strike(member, 'E_ENGINE', message.why)
    this.#orphan(piece)
    this.#dispatch()
  }

  /** Counts something unusable from a worker, and tells it. After three in a row it is set aside for a growing time. */
  refuse(member: Member, error: ConvoyError, id?: number): void {
    member.send({
      kind: 'refused',
      code: error.code,
      message: error.message,
      ...(id === undefined ? {} : { id }),
    })
    this.#strike(member, error.code, error.message)
  }

  /** Ends all watching and reporting: what happens from here on is farewells. */
  dispose(): void {
    this.#closed = true
    clearInterval(this.#ticker)
  }

  #strike(member: Member, code: string, message: string): void {
    this.#report({ event: 'refused', worker: member.name, code, message })
    const seconds = this.#records.strike(member.name)
    if (seconds === undefined) return
    this.#report({ event: 'setAside', worker: member.name, seconds, code })
    for (const assignment of member.assignments.values()) this.#orphan(this.#pieces.get(assignment))
  }

  /** Counts an answer that was taken, and who was waited for at the job's end. */
  #tallyAnswer(member: Member, answer: Answer): void {
    if (answer.kind === 'gradient') member.tally.samples += answer.count
    const at = performance.now()
    const last = this.#lastAnswer
    const othersAt = last?.member === member ? last.othersAt : last?.at
    this.#lastAnswer = { member, at, othersAt }
    const ends = this.#open.size === 1
    if (ends && othersAt !== undefined) member.tally.waitedFor += (at - othersAt) / 1000
  }

  #recover(member: Member): void {
    if (member.state !== 'stalled') return
    if ([...member.assignments.values()].some((assignment) => assignment.late)) return
    member.state = 'ready'
    this.#report({ event: 'workerRecovered', worker: member.name })
  }

  #eligible(member: Member): boolean {
    if (member.state !== 'ready' || !this.#frame || !this.#job) return false
    if (this.setAside(member)) return false
    return member.offerParameters(this.#frame, () => this.#dispatch())
  }

  /** Cuts a batch among the workers by their measured speed and hands all of it out. */
  #plan(job: Job): void {
    const members = [...this.#members.values()].filter((member) => this.#eligible(member))
    if (members.length === 0) {
      this.#orphan(this.#piece(0, job.units))
      return
    }
    const known = members.filter((member) => member.pace.known).map((member) => member.pace.rate(1))
    const usual = known.length > 0 ? median(known) : 1
    // One that is new warms up, and may be slow: with one leaf it does not keep the others waiting.
    const most = (member: Member) => (known.length > 0 && !member.pace.known ? 1 : Infinity)
    const shares = cutLeaves(
      job.units,
      members.map((member) => member.pace.rate(usual)),
      members.map(most),
    )
    members.forEach((member, i) => {
      member.idleSteps = shares[i] === 0 ? member.idleSteps + 1 : 0
      if (member.idleSteps < PROBE_AFTER) return
      const largest = shares.indexOf(Math.max(...shares))
      if (shares[largest] < 2) return
      shares[largest]--
      shares[i] = 1
      member.idleSteps = 0
    })
    let lo = 0
    members.forEach((member, i) => {
      const hi = lo + shares[i]
      for (const [from, to] of this.#nodes(lo, hi, job)) this.#assign(member, this.#piece(from, to))
      lo = hi
    })
  }

  /** The fewest tree nodes that cover [lo, hi), none larger than the job allows. */
  *#nodes(lo: number, hi: number, job: Job): Generator<readonly [number, number]> {
    for (const [from, to] of cover(lo, hi, job.units)) {
      if (to - from <= job.largest) yield [from, to]
      else {
        const middle = split(from, to)
        yield* this.#nodes(from, middle, job)
        yield* this.#nodes(middle, to, job)
      }
    }
  }

  #piece(lo: number, hi: number): Piece {
    const piece: Piece = { lo, hi, done: false, waiting: false, holders: new Map() }
    this.#open.add(piece)
    return piece
  }

  #orphan(piece: Piece | undefined): void {
    if (!piece || piece.done || piece.waiting) return
    piece.waiting = true
    this.#orphans.push(piece)
  }

  #assign(member: Member, piece: Piece): void {
    const job = this.#job!
    const samples = job.samples(piece.lo, piece.hi)
    const assignment: Assignment = {
      id: this.#nextId++,
      lo: piece.lo,
      hi: piece.hi,
      step: job.step,
      samples,
      startedAt: performance.now(),
      late: false,
    }
    member.assignments.set(assignment.id, assignment)
    this.#pieces.set(assignment, piece)
    piece.holders.set(member, assignment)
    const { pixels, payloads } = job.request(piece.lo, piece.hi, !member.holdsData)
    member.send(
      {
        kind: 'work',
        task: job.task,
        id: assignment.id,
        epoch: job.epoch,
        step: job.step,
        lo: piece.lo,
        hi: piece.hi,
        count: samples,
        pixels,
        encoding: job.encoding(piece.lo, piece.hi),
      },
      ...payloads,
    )
  }

  /**
   * Forgets an assignment; the worker's next one starts now. Where the worker is gone, what nobody else has, or only who is
   * late with it, waits for another.
   */
  #drop(member: Member, assignment: Assignment): void {
    const first = member.assignments.values().next().value === assignment
    member.assignments.delete(assignment.id)
    const piece = this.#pieces.get(assignment)
    this.#pieces.delete(assignment)
    if (first) {
      const next: Assignment | undefined = member.assignments.values().next().value
      if (next) next.startedAt = performance.now()
    }
    if (!piece) return
    piece.holders.delete(member)
    if (member.state !== 'gone') return
    const waitedFor = [...piece.holders].some(([other, held]) => other.state !== 'stalled' && !held.late)
    if (!waitedFor) this.#orphan(piece)
  }

  #complete(piece: Piece): void {
    piece.done = true
    this.#release(piece)
    if (this.#open.size === 0) this.#end(true)
  }

  /** Nobody needs to compute this piece any more. */
  #release(piece: Piece): void {
    this.#open.delete(piece)
    for (const [member, assignment] of [...piece.holders]) {
      member.cancel(assignment)
      this.#drop(member, assignment)
    }
  }

  #end(done: boolean): void {
    this.#orphans.length = 0
    this.#job = undefined
    const finish = this.#finish!
    this.#finish = undefined
    finish(done)
  }

  /** Gives work to whoever has none. */
  #dispatch(): void {
    const job = this.#job
    if (!job) return
    for (const piece of this.#orphans) {
      // Of a node that only one worker answered, nobody else may be there to verify it.
      if (piece.votes?.length === 1 && !piece.done && !this.#jury.fresh(piece.votes)) this.#complete(piece)
      if (!this.#job) return
    }
    this.#orphans = this.#orphans.filter((piece) => !piece.done)
    const depth = job.planned ? 1 : 2
    let someone = false
    const idle: Member[] = []
    for (const member of this.#members.values()) {
      if (!this.#eligible(member)) continue
      someone = true
      if (member.assignments.size < depth) idle.push(member)
    }
    if (!someone && this.#members.size === 0 && !this.#saidWaiting) {
      this.#saidWaiting = true
      this.#report({
        event: 'waiting',
        reason: this.#records.size > 0 ? 'there is no worker; the run goes on when one comes' : FOR_WORKERS,
      })
    }
    if (someone) this.#saidWaiting = false
    this.#clockWaiting()
    while (idle.length > 0) {
      idle.sort((a, b) => a.assignments.size - b.assignments.size)
      const member = idle.shift()!
      const piece = this.#next(member, idle.length + 1)
      if (!piece) continue
      this.#assign(member, piece)
      if (member.assignments.size < depth) idle.push(member)
    }
  }

  /** Tells waiting for workers, which may take days, from computing. */
  #clockWaiting(): void {
    const now = performance.now()
    const here = [...this.#members.values()].some(({ state }) => state === 'ready' || state === 'stalled')
    if (!here) this.#waitingSince ??= now
    else if (this.#waitingSince !== undefined) {
      this.waited += now - this.#waitingSince
      this.#waitingSince = undefined
    }
  }

  /** What an idle worker should do: work that nobody has, or else work that it would finish before its holder. */
  #next(member: Member, idle: number): Piece | undefined {
    const job = this.#job!
    const at = this.#orphans.findIndex(
      (orphan) =>
        !orphan.holders.has(member) &&
        (!orphan.votes || this.#jury.mayVote(orphan.votes, member)) &&
        (orphan.notFinite === undefined || this.#jury.mayJudge(orphan.notFinite, member)),
    )
    if (at < 0) return this.#overtake(member)
    let [piece] = this.#orphans.splice(at, 1) as [Piece]
    piece.waiting = false
    // Too large, or fewer pieces than hands: halve it. A piece that someone still computes stays whole.
    while (
      piece.holders.size === 0 &&
      !piece.votes &&
      piece.notFinite === undefined &&
      piece.hi - piece.lo > 1 &&
      (piece.hi - piece.lo > job.largest || this.#orphans.length + 1 < idle)
    ) {
      const middle = split(piece.lo, piece.hi)
      this.#open.delete(piece)
      const right = this.#piece(middle, piece.hi)
      right.waiting = true
      this.#orphans.unshift(right)
      piece = this.#piece(piece.lo, middle)
    }
    return piece
  }

  /** The piece that its only holder is expected to finish last, if this worker would finish it sooner. */
  #overtake(member: Member): Piece | undefined {
    if (!member.pace.known || member.assignments.size > 0) return undefined
    const now = performance.now()
    let best: Piece | undefined
    let latest = 0
    for (const other of this.#members.values()) {
      let at = 0
      for (const assignment of other.assignments.values()) {
        const piece = this.#pieces.get(assignment)!
        at = Math.max(at, assignment.startedAt) + 1000 * (other.pace.expected(assignment.samples) ?? 0)
        if (piece.holders.size > 1 || piece.waiting || piece.votes) continue
        const mine = now + 1000 * member.pace.expected(assignment.samples)!
        if (at > mine && at > latest) {
          best = piece
          latest = at
        }
      }
    }
    return best
  }

  /** Looks for workers that are past their deadline, names them, and lets others have their work too. */
  #tick(): void {
    const now = performance.now()
    const slept = now - this.#lastTick > 3 * TICK
    this.#lastTick = now
    // After a pause of this process itself, answers may be waiting unread: nobody is late by that.
    if (slept || !this.#job) return
    const slowest = Math.max(...[...this.#members.values()].map((member) => member.pace.expected(1) ?? 0))
    for (const member of this.#members.values()) {
      if (member.state === 'compiling') this.#watchCompiling(member, now, this.#job.step)
      const assignment: Assignment | undefined = member.assignments.values().next().value
      if (!assignment || assignment.late || member.state === 'stalled') continue
      const patience =
        member.pace.deadline(assignment.samples) ??
        (slowest > 0 ? UNKNOWN_PATIENCE * slowest * assignment.samples : FIRST_PATIENCE)
      const waited = (now - assignment.startedAt) / 1000
      if (waited <= patience) continue
      assignment.late = true
      if (member.state === 'ready') member.state = 'stalled'
      member.tally.stalls++
      this.#report({ event: 'workerStalled', worker: member.name, waited, step: assignment.step })
      for (const held of member.assignments.values()) this.#orphan(this.#pieces.get(held))
    }
    this.#dispatch()
    this.#sayUseless()
  }

  #watchCompiling(member: Member, now: number, step: number): void {
    const waited = (now - member.joinedAt) / 1000
    if (member.compilesLate || waited <= FIRST_PATIENCE) return
    member.compilesLate = true
    member.tally.stalls++
    this.#report({ event: 'workerStalled', worker: member.name, waited, step, compiling: true })
  }

  /** Says that the run waits though workers are there, since none of them is of use. */
  #sayUseless(): void {
    if (this.#saidWaiting || this.#members.size === 0) return
    const useless: string[] = []
    for (const member of this.#members.values()) {
      if (member.compilesLate && member.state === 'compiling')
        useless.push(`${member.name} is still compiling the model`)
      else if (member.state === 'stalled') useless.push(`${member.name} is stalled`)
      else if (this.setAside(member)) useless.push(`${member.name} is set aside`)
      else return
    }
    this.#saidWaiting = true
    this.#report({
      event: 'waiting',
      reason: `${useless.slice(0, 5).join(', ')}; the run goes on when one answers`,
    })
  }
}
