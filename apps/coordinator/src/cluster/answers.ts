import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import type { Report } from '../events.ts'
import type { Answer, Gradient, Tail } from './job.ts'
import { voteOf, type Jury } from './jury.ts'
import type { Assignment, Member } from './member.ts'
import type { Planner } from './planner.ts'
import type { WorkerRecords } from './records.ts'
import type { Verification } from './verification.ts'
import type { Watch } from './watch.ts'
import type { Piece, Work } from './work.ts'

/** The rooms of the cluster that an answer passes through. */
export interface AnswersOptions {
  readonly members: ReadonlyMap<string, Member>
  readonly records: WorkerRecords
  readonly jury: Jury
  readonly work: Work
  readonly planner: Planner
  readonly watch: Watch
  readonly verification: Verification
  readonly report: Report
  /** Called where the gradient of a step is not finite, and no single worker is to blame. */
  readonly notFinite: (piece: Piece) => void
}

/** Takes what workers answer, or refuses it; and keeps account of both. */
export class Answers {
  /** Engine time of each worker whose answers the job at hand took, in seconds. */
  readonly engineSeconds = new Map<Member, number>()
  /** Samples whose gradients were computed but not needed: answers that came second. */
  wasted = 0
  /** Who answered the job at hand last, and when anyone else did, in ms: for `Tally.waitedFor`. */
  #last: { member: Member; at: number; othersAt: number | undefined } | undefined
  readonly #options: AnswersOptions

  constructor(options: AnswersOptions) {
    this.#options = options
  }

  /** A job begins. */
  begin(): void {
    this.#last = undefined
    this.engineSeconds.clear()
  }

  /** Takes a worker's answer, or refuses it and tells the worker why. */
  take(member: Member, answer: Answer, payload: Uint8Array): void {
    const { work, planner, watch, verification } = this.#options
    const assignment = member.assignments.get(answer.id)
    if (!assignment) return this.#takeUnasked(member, answer)
    const piece = work.pieceOf(assignment)!
    const seconds = (performance.now() - assignment.startedAt) / 1000
    work.drop(member, assignment)
    try {
      checkSubject(answer, assignment)
      if (piece.votes) piece.votes.push(voteOf(member.name, answer as Gradient, payload))
      else work.job!.accept(answer, payload, member.name)
    } catch (thrown) {
      return this.#refuseAnswer(member, asConvoyError(thrown), answer.id, piece)
    }
    this.#account(member, answer, assignment, seconds)
    watch.answered(member)
    if (piece.votes) verification.count(piece)
    else {
      this.#strikeFailed(piece)
      if (answer.kind === 'gradient') verification.sample(piece, member.name, answer, payload)
      work.complete(piece)
    }
    planner.dispatch()
  }

  /** Takes the end of a worker's gradient while it computes the beginning, or refuses it and what is to come of it. */
  takeTail(member: Member, tail: Tail, payload: Uint8Array): void {
    const { work } = this.#options
    const assignment = member.assignments.get(tail.id)
    if (!assignment && member.awaits(tail.id)) return
    if (!assignment?.cut) return this.#takeUnasked(member, tail)
    assignment.cut = 0
    try {
      checkSubject(tail, assignment)
      work.job!.acceptTail!(tail, payload)
    } catch (thrown) {
      const piece = work.pieceOf(assignment)!
      work.drop(member, assignment)
      member.ignore(tail.id)
      this.#refuseAnswer(member, asConvoyError(thrown), tail.id, piece)
    }
  }

  /** An answer to a request that was cancelled, or to none. */
  #takeUnasked(member: Member, answer: Answer | Tail): void {
    if (member.wasCancelled(answer.id)) {
      this.wasted += answer.kind === 'gradient' ? answer.count : 0
      this.#options.watch.answered(member)
      return
    }
    this.refuse(member, new ConvoyError('E_NOT_ASKED', `answer ${answer.id} was not asked for`, 'Nothing.'))
  }

  /** Counts an answer that was taken, and who was waited for at the job's end. */
  #account(member: Member, answer: Answer, { samples }: Assignment, seconds: number): void {
    const { records, work } = this.#options
    records.took(member.name, answer.kind === 'gradient' ? answer.step : undefined)
    if (answer.kind === 'gradient' && !this.engineSeconds.has(member))
      member.pace.addFirst(samples, seconds, answer.seconds)
    this.engineSeconds.set(member, (this.engineSeconds.get(member) ?? 0) + answer.seconds)
    // A first answer includes warming up; it would make a poor measure if it stayed the only one.
    member.pace.add(samples, seconds)
    if (answer.kind === 'gradient') member.tally.samples += answer.count
    const at = performance.now()
    const last = this.#last
    const othersAt = last?.member === member ? last.othersAt : last?.at
    this.#last = { member, at, othersAt }
    const ends = work.open === 1
    if (ends && othersAt !== undefined) member.tally.waitedFor += (at - othersAt) / 1000
  }

  /** Blames the worker that gave as NaN or Inf what another's answer shows to be finite. */
  #strikeFailed({ notFinite }: Piece): void {
    const failed = notFinite === undefined ? undefined : this.#options.members.get(notFinite)
    if (failed) this.#strike(failed, 'E_NOT_FINITE', 'what it gave as NaN or Inf is finite')
  }

  /**
   * Refuses an answer. For one that is not finite nobody is blamed before somebody else tried too: where both fail, and
   * one of them has given good answers before (as long as anyone here has), the training has diverged.
   */
  #refuseAnswer(member: Member, error: ConvoyError, id: number, piece: Piece): void {
    const { jury, work, planner, report, notFinite } = this.#options
    if (error.code !== 'E_NOT_FINITE') this.refuse(member, error, id)
    else {
      const { code, message } = error
      member.send({ kind: 'refused', code, message, id })
      report({ event: 'refused', worker: member.name, code, message })
      const before = piece.notFinite
      piece.notFinite = member.name
      if (before !== undefined && jury.convicts(before, member)) return notFinite(piece)
    }
    work.enqueue(piece)
    planner.dispatch()
  }

  /** The worker says that it could not do something, or that it dropped what was cancelled. */
  failed(member: Member, { id, why }: MessageOf<WorkerMessage, 'failed'>): void {
    const { work, planner, watch } = this.#options
    const assignment = member.assignments.get(id)
    if (!assignment) {
      if (member.wasCancelled(id)) watch.answered(member)
      return
    }
    const piece = work.pieceOf(assignment)
    work.drop(member, assignment)
    this.#strike(member, 'E_ENGINE', why)
    work.enqueue(piece)
    planner.dispatch()
  }

  /** Counts something unusable from a worker, and tells it. After three in a row it is set aside for a growing time. */
  refuse(member: Member, error: ConvoyError, id?: number): void {
    const { code, message } = error
    member.send({ kind: 'refused', code, message, ...(id === undefined ? {} : { id }) })
    this.#strike(member, code, message)
  }

  #strike(member: Member, code: string, message: string): void {
    const { records, work, report } = this.#options
    report({ event: 'refused', worker: member.name, code, message })
    const seconds = records.strike(member.name)
    if (seconds === undefined) return
    report({ event: 'setAside', worker: member.name, seconds, code })
    work.enqueueAllOf(member)
  }
}

/** Throws E_NOT_ASKED where an answer is about something else than its request. */
function checkSubject({ id, step, lo, hi }: Answer | Tail, asked: Assignment): void {
  if (step === asked.step && lo === asked.lo && hi === asked.hi) return
  throw new ConvoyError(
    'E_NOT_ASKED',
    `answer ${id} is about step ${step} [${lo}, ${hi}), not ${asked.step} [${asked.lo}, ${asked.hi})`,
    'Nothing.',
  )
}
