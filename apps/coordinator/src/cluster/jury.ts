import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import { createHash } from 'node:crypto'
import type { Member } from './member.ts'
import { numericsText } from '../numerics.ts'
import type { WorkerRecords } from './records.ts'

/** One worker's answer to a node that is verified. */
export interface Vote {
  readonly worker: string
  /** A hash of the answer: two with one digest are the same bits. */
  readonly digest: string
}

export function voteOf(
  worker: string,
  { loss, correct, count }: MessageOf<WorkerMessage, 'gradient'>,
  payload: Uint8Array,
): Vote {
  const totals = new Uint8Array(Float64Array.of(loss, correct, count).buffer)
  return { worker, digest: createHash('sha256').update(totals).update(payload).digest('base64') }
}

/** What two workers gave alike is right, since a wrong answer is hardly ever wrong twice alike; undefined where none is. */
export function agreed(votes: readonly Vote[]): string | undefined {
  return votes.find(({ worker, digest }) =>
    votes.some((other) => other.digest === digest && other.worker !== worker),
  )?.digest
}

/** Who may check whose work. */
export class Jury {
  readonly #members: ReadonlyMap<string, Member>
  readonly #records: WorkerRecords

  constructor(members: ReadonlyMap<string, Member>, records: WorkerRecords) {
    this.#members = members
    this.#records = records
  }

  /** Whether a worker may answer a node that is verified: one of the same arithmetic that did not, or, in a dispute, once more. */
  mayVote(votes: readonly Vote[], member: Member): boolean {
    const before = votes.filter(({ worker }) => worker === member.name).length
    if (before > 1 || this.#records.aside(member.name)) return false
    const first = this.#members.get(votes[0].worker)
    if (first && numericsText(first.numerics) !== numericsText(member.numerics)) return false
    return before === 0 || (votes.length > 1 && !this.fresh(votes, member))
  }

  /** Whether there is someone else who has not answered yet. */
  fresh(votes: readonly Vote[], but?: Member): boolean {
    return [...this.#members.values()].some(
      (member) =>
        member !== but &&
        member.state === 'ready' &&
        votes.every(({ worker }) => worker !== member.name) &&
        this.mayVote(votes, member),
    )
  }

  /** Whether a worker may try what another, `failed`, gave as NaN or Inf. */
  mayJudge(failed: string, member: Member): boolean {
    return failed === member.name ? this.#alone(member) : this.#believed(failed, member.name)
  }

  /** Whether it is the work that is not finite, and not the workers that gave it so, one after the other. */
  convicts(before: string, member: Member): boolean {
    return this.#believed(before, member.name) && (before !== member.name || this.#alone(member))
  }

  /** Whether one of two workers gave good answers before, as long as anyone here has. */
  #believed(one: string, other: string): boolean {
    const proven = (name: string) => this.#records.proven(name)
    return proven(one) || proven(other) || ![...this.#members.keys()].some(proven)
  }

  /** Whether nobody else can be given work. */
  #alone(member: Member): boolean {
    return [...this.#members.values()].every(
      (other) => other === member || other.state !== 'ready' || this.#records.aside(other.name),
    )
  }
}
