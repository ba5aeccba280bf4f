import { ConvoyError } from '@convoy/errors'
import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import { LEFT, type Report } from '../events.ts'
import { Answers, type AnswersOptions } from './answers.ts'
import type { Answer, Job, Tail } from './job.ts'
import { Jury } from './jury.ts'
import type { Member } from './member.ts'
import type { Pace } from './pace.ts'
import type { ParameterFrame, SentParameters } from './parameters.ts'
import { Planner } from './planner.ts'
import { banned, WorkerRecords } from './records.ts'
import { Tally } from './tally.ts'
import { Verification, type Found } from './verification.ts'
import { Waiting } from './waiting.ts'
import { Watch } from './watch.ts'
import { Work } from './work.ts'

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
  readonly #records: WorkerRecords
  readonly #work = new Work()
  readonly #waiting: Waiting
  readonly #planner: Planner
  readonly #watch: Watch
  readonly #verification: Verification
  readonly #answers: Answers
  readonly #report: Report
  #closed = false

  /** Called where a worker was found to give wrong gradients, with the first step that may hold one of them. */
  onDishonest: (since: number, found: Found) => void = () => {}
  /** Called where the gradient of a step is not finite, and no single worker is to blame. */
  onNotFinite: (node: { readonly lo: number; readonly hi: number }) => void = () => {}
  /** Called where a worker became ready, is leaving, or is gone. */
  onChange: () => void = () => {}

  constructor(report: Report, { verify = 0, resumed = false }: ClusterOptions = {}) {
    const members = this.#members
    const work = this.#work
    const records = new WorkerRecords(resumed)
    const jury = new Jury(members, records)
    const waiting = new Waiting(members, records, report)
    const planner = new Planner(members, records, jury, work, waiting)
    const watch = new Watch(members, work, planner, waiting, report)
    const verification = new Verification(
      verify,
      work,
      records,
      report,
      (worker) => this.#warn(worker),
      (worker) => this.#expel(worker),
      (since, found) => this.onDishonest(since, found),
    )
    const notFinite: AnswersOptions['notFinite'] = (piece) => this.onNotFinite(piece)
    this.#answers = new Answers({
      ...{ members, records, jury, work, planner, watch, verification, report, notFinite },
    })
    this.#records = records
    this.#waiting = waiting
    this.#planner = planner
    this.#watch = watch
    this.#verification = verification
    this.#report = report
  }

  get size(): number {
    return this.#members.size
  }

  get members(): Iterable<Member> {
    return this.#members.values()
  }

  /** What every worker did that ever joined, by name. */
  get tallies(): ReadonlyMap<string, Tally> {
    return this.#records.tallies
  }

  /** Bytes to and from all workers since the coordinator started. */
  get traffic(): { sent: number; received: number } {
    return this.#records.traffic
  }

  /** Engine time of each worker whose answers the job at hand took, in seconds. */
  get engineSeconds(): ReadonlyMap<Member, number> {
    return this.#answers.engineSeconds
  }

  /** Milliseconds of the job at hand in which there was no worker to compute it. */
  get waited(): number {
    return this.#waiting.elapsed
  }

  /** Samples whose gradients were computed but not needed: answers that came second. */
  get wasted(): number {
    return this.#answers.wasted
  }

  /** Whether a worker's answers were refused so often that it gets no work now. */
  setAside(member: Member): boolean {
    return this.#records.aside(member.name)
  }

  /** Throws E_DISHONEST for a worker that was found to give wrong gradients, by its name or process. */
  checkBan(hello: { name: string; instance: string }): void {
    this.#records.checkBan(hello)
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
    // What ended is not reported on: `done` is the last that is said of a run.
    if (this.#closed) return
    this.#report({
      event: 'workerJoined',
      worker: member.name,
      engine: member.engine,
      workers: this.#members.size,
    })
  }

  /** The worker compiled the model and can be given work. */
  ready(member: Member): void {
    this.#watch.compiled(member)
    this.onChange()
    this.#planner.dispatch()
  }

  /** The worker goes on its own will: it finishes what it is at, the rest goes to others at once. */
  leaving(member: Member, finishing: number | undefined): void {
    member.state = 'leaving'
    for (const assignment of [...member.assignments.values()]) {
      if (assignment.id === finishing) continue
      const piece = this.#work.pieceOf(assignment)
      member.cancel(assignment)
      this.#work.drop(member, assignment)
      this.#work.enqueue(piece)
    }
    this.onChange()
    this.#planner.dispatch()
  }

  /** The worker's connection is gone. */
  leave(member: Member, reason: string): void {
    if (member.state === 'gone') return
    if (member.state === 'leaving') reason = LEFT
    member.state = 'gone'
    if (this.#members.get(member.name) === member) this.#members.delete(member.name)
    for (const assignment of [...member.assignments.values()]) this.#work.drop(member, assignment)
    this.#records.forget((name) => this.#members.has(name), this.#verification.on)
    if (this.#closed) return
    this.#report({ event: 'workerLeft', worker: member.name, reason, workers: this.#members.size })
    this.#waiting.left()
    this.onChange()
    this.#planner.dispatch()
  }

  /** Tells a relay that its sum was wrong: once, it may find out by which of its workers. */
  #warn(worker: string): boolean {
    const member = this.#members.get(worker)
    if (!member?.relay || !this.#records.warn(worker)) return false
    const { code, message } = banned()
    member.send({ kind: 'refused', code, message })
    return true
  }

  /** A relay found a worker of its own to be wrong. What went up from it since then is in doubt. */
  dishonestBelow(
    member: Member,
    { worker, step, lo, hi, since }: MessageOf<WorkerMessage, 'dishonest'>,
  ): void {
    if (!this.#verification.on) {
      throw new ConvoyError('E_MESSAGE', 'nobody is to be found dishonest without --verify', 'Nothing.')
    }
    const found = { worker: `${member.name}/${worker}`, step, lo, hi }
    this.#report({ event: 'dishonest', ...found })
    const first = this.#records.since(member.name)
    // Of the step at hand nothing had gone up.
    if (first !== undefined && since < step) this.onDishonest(Math.max(since, first), found)
  }

  /** Share of the gradients that a second worker repeats. */
  set verify(share: number) {
    this.#verification.share = share
  }

  /** Sends a worker away for good. */
  #expel(worker: string): void {
    const member = this.#members.get(worker)
    if (!member) return
    const { message, remedy } = banned()
    member.send({ kind: 'goodbye', code: 'E_DISHONEST', message, remedy })
    member.socket.close(1008)
    this.leave(member, 'it gave wrong gradients')
  }

  /**
   * Has the workers do one job on these parameters; waits while there is no worker. Resolves with true when every unit
   * is done, and with false where the job was abandoned.
   */
  compute(job: Job, frame: SentParameters): Promise<boolean> {
    return new Promise((resolve) => {
      this.#work.begin(job, frame, resolve)
      this.#answers.begin()
      this.#waiting.begin()
      this.#planner.begin(job)
    })
  }

  /** Has a node more belong to the job at hand. */
  add(lo: number, hi: number): void {
    this.#planner.add(lo, hi)
    this.#planner.dispatch()
  }

  /** Gives up what is not done of a node of the job at hand, and the job where nothing else is left of it. */
  withdraw(lo: number, hi: number): void {
    this.#work.withdraw(lo, hi)
  }

  /** Whether there is a job at hand. */
  get computing(): boolean {
    return this.#work.job !== undefined
  }

  /** Whether anyone is here who compiled the model and stays. */
  get useful(): boolean {
    return [...this.#members.values()].some(({ state }) => state === 'ready' || state === 'stalled')
  }

  /** Gives up the job at hand; its answers are ignored when they come. */
  abandon(): void {
    this.#work.abandon()
  }

  /**
   * Begins to send parameters that are still being computed to whoever can take them.
   *
   * @returns To be called as the frame fills, with the number of values that are complete; in one go, to the end.
   */
  broadcast(frame: ParameterFrame): (complete: number) => void {
    const members = [...this.#members.values()].filter(
      (member) => member.state === 'ready' && member.beginParameters(frame, () => this.#planner.dispatch()),
    )
    const whole = members.filter((member) => !member.hasTail(frame))
    return (complete) => {
      const last = complete === frame.values.length
      if (whole.length > 0) {
        const part = frame.next(complete)
        for (const member of whole) member.sendParameters(part, last)
      }
      if (!last) return
      for (const member of members) if (member.hasTail(frame)) member.sendParameters(frame.head(), true)
    }
  }

  /** Sends what is complete of the next parameters, those from number `from` on, to whoever computes with the present ones. */
  broadcastAhead(frame: ParameterFrame, from: number, present: number): void {
    for (const member of this.#members.values())
      if (member.state === 'ready') member.sendAhead(frame, from, present)
  }

  /** Takes a worker's answer, or refuses it and tells the worker why. */
  answer(member: Member, answer: Answer, payload: Uint8Array): void {
    this.#answers.take(member, answer, payload)
  }

  /** Takes the end of a worker's gradient, ahead of the rest, or refuses both. */
  answerTail(member: Member, tail: Tail, payload: Uint8Array): void {
    this.#answers.takeTail(member, tail, payload)
  }

  /** The worker says that it could not do something, or that it dropped what was cancelled. */
  failed(member: Member, message: MessageOf<WorkerMessage, 'failed'>): void {
    this.#answers.failed(member, message)
  }

  /** Counts something unusable from a worker, and tells it. After three in a row it is set aside for a growing time. */
  refuse(member: Member, error: ConvoyError): void {
    this.#answers.refuse(member, error)
  }

  /** Ends all watching and reporting: what happens from here on is farewells. */
  dispose(): void {
    this.#closed = true
    this.#watch.close()
  }
}
