import { FOR_WORKERS, type Report } from '../events.ts'
import type { Member } from './member.ts'
import type { WorkerRecords } from './records.ts'

/** Says when a job waits for workers, and for how long it did. */
export class Waiting {
  /** Milliseconds of the job at hand in which there was no worker to compute it. */
  elapsed = 0
  #since: number | undefined
  #said = false
  readonly #members: ReadonlyMap<string, Member>
  readonly #records: WorkerRecords
  readonly #report: Report

  constructor(members: ReadonlyMap<string, Member>, records: WorkerRecords, report: Report) {
    this.#members = members
    this.#records = records
    this.#report = report
  }

  /** A job begins. One that was abandoned may have waited, too. */
  begin(): void {
    this.elapsed = 0
    this.#since = undefined
  }

  /** A worker left: where it was the last one, this is to be said anew. */
  left(): void {
    if (this.#members.size === 0) this.#said = false
  }

  /** @param someone Whether there is a worker that can be given work. */
  look(someone: boolean): void {
    if (!someone && !this.#said) {
      const members = [...this.#members.values()]
      if (members.length === 0)
        this.#say(this.#records.size > 0 ? 'there is no worker; the run goes on when one comes' : FOR_WORKERS)
      // A worker that is leaving is gone soon; a relay stays, for others to come to it.
      else if (members.every(({ relay, state }) => relay && state === 'leaving'))
        this.#say('no relay has a worker; the run goes on when one comes')
    }
    if (someone) this.#said = false
    this.#clock()
  }

  /** Tells waiting for workers, which may take days, from computing. */
  #clock(): void {
    const now = performance.now()
    if (!this.#here()) this.#since ??= now
    else if (this.#since !== undefined) {
      this.elapsed += now - this.#since
      this.#since = undefined
    }
  }

  /** Whether a worker is there; at each answer this is asked, and an array of a thousand is not made for it. */
  #here(): boolean {
    for (const { state } of this.#members.values()) if (state === 'ready' || state === 'stalled') return true
    return false
  }

  /** Says that the run waits though workers are there, where none of them is of use. */
  sayUseless(): void {
    if (this.#said || this.#members.size === 0) return
    const useless: string[] = []
    for (const member of this.#members.values()) {
      if (member.compilesLate && member.state === 'compiling')
        useless.push(`${member.name} is still compiling the model`)
      else if (member.state === 'stalled') useless.push(`${member.name} is stalled`)
      else if (this.#records.aside(member.name)) useless.push(`${member.name} is set aside`)
      else return
    }
    this.#say(`${useless.slice(0, 5).join(', ')}; the run goes on when one answers`)
  }

  #say(reason: string): void {
    this.#said = true
    this.#report({ event: 'waiting', reason })
  }
}
