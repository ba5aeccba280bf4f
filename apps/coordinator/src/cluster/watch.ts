import type { Report } from '../events.ts'
import type { Assignment, Member } from './member.ts'
import type { Planner } from './planner.ts'
import type { Waiting } from './waiting.ts'
import type { Work } from './work.ts'

/** How often deadlines are looked at, in milliseconds. */
const TICK = 100
/** Where nothing is known of a worker, it may take this many times what the slowest known one would. */
const UNKNOWN_PATIENCE = 10
/** And so many seconds where nothing is known of anyone yet, or until it has compiled the model; */
const FIRST_PATIENCE = 60
/** for each so many samples, where a leaf is as long as a replica's round. */
const FIRST_SAMPLES = 256

/** Watches deadlines: names workers that are past theirs, and lets others have their work too. */
export class Watch {
  readonly #members: ReadonlyMap<string, Member>
  readonly #work: Work
  readonly #planner: Planner
  readonly #waiting: Waiting
  readonly #report: Report
  #lastTick = performance.now()
  readonly #ticker: NodeJS.Timeout

  constructor(
    members: ReadonlyMap<string, Member>,
    work: Work,
    planner: Planner,
    waiting: Waiting,
    report: Report,
  ) {
    this.#members = members
    this.#work = work
    this.#planner = planner
    this.#waiting = waiting
    this.#report = report
    this.#ticker = setInterval(() => this.#tick(), TICK)
    this.#ticker.unref()
  }

  close(): void {
    clearInterval(this.#ticker)
  }

  /** A worker has compiled the model. */
  compiled(member: Member): void {
    // A relay that had no workers any more has some again.
    if (member.state !== 'compiling' && member.state !== 'leaving') return
    member.state = 'ready'
    if (member.compilesLate) this.#report({ event: 'workerRecovered', worker: member.name })
  }

  /** A worker answered: one that was stalled is ready again, unless it is still late with something. */
  answered(member: Member): void {
    if (member.state !== 'stalled') return
    if ([...member.assignments.values()].some((assignment) => assignment.late)) return
    member.state = 'ready'
    this.#report({ event: 'workerRecovered', worker: member.name })
  }

  #tick(): void {
    const now = performance.now()
    const slept = now - this.#lastTick > 3 * TICK
    this.#lastTick = now
    const { job } = this.#work
    // After a pause of this process itself, answers may be waiting unread: nobody is late by that.
    if (slept || !job) return
    const slowest = Math.max(...[...this.#members.values()].map((member) => member.pace.expected(1) ?? 0))
    for (const member of this.#members.values()) {
      if (member.state === 'compiling') this.#watchCompiling(member, now, job.step)
      this.#watchAnswer(member, now, slowest)
    }
    this.#planner.dispatch()
    this.#waiting.sayUseless()
  }

  #watchCompiling(member: Member, now: number, step: number): void {
    const waited = (now - member.joinedAt) / 1000
    if (member.compilesLate || waited <= FIRST_PATIENCE) return
    member.compilesLate = true
    member.tally.stalls++
    this.#report({ event: 'workerStalled', worker: member.name, waited, step, compiling: true })
  }

  /** @param slowest Seconds that the slowest known worker is expected to take for a sample; 0 where nothing is known of any. */
  #watchAnswer(member: Member, now: number, slowest: number): void {
    const assignment: Assignment | undefined = member.assignments.values().next().value
    if (!assignment || assignment.late || member.state === 'stalled') return
    const patience =
      member.pace.deadline(assignment.samples) ??
      (slowest > 0
        ? UNKNOWN_PATIENCE * slowest * assignment.samples
        : FIRST_PATIENCE * Math.max(1, assignment.samples / FIRST_SAMPLES))
    const waited = (now - assignment.startedAt) / 1000
    if (waited <= patience) return
    assignment.late = true
    if (member.state === 'ready') member.state = 'stalled'
    member.tally.stalls++
    this.#report({ event: 'workerStalled', worker: member.name, waited, step: assignment.step })
    this.#work.enqueueAllOf(member)
  }
}
