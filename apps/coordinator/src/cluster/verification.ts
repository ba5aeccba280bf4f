import type { Report } from '../events.ts'
import type { Gradient } from './job.ts'
import { agreed, voteOf } from './jury.ts'
import type { WorkerRecords } from './records.ts'
import type { Piece, Work } from './work.ts'

/** Whose gradient of which node was wrong. */
export interface Found {
  readonly worker: string
  readonly step: number
  readonly lo: number
  readonly hi: number
}

/** Has a share of the gradients computed by a second worker too, and finds out whose are wrong. */
export class Verification {
  /** Of the gradients that a second worker repeats. */
  share: number
  readonly #work: Work
  readonly #records: WorkerRecords
  readonly #report: Report
  readonly #warn: (worker: string) => boolean
  readonly #expel: (worker: string) => void
  readonly #dishonest: (since: number, found: Found) => void

  /**
   * @param share Of the gradients that a second worker repeats.
   * @param warn Tells a relay, which may have believed a wrong worker; false where it is none, or was told before.
   * @param expel Sends a worker away for good.
   * @param dishonest Told of the first step that may hold a wrong gradient.
   */
  constructor(
    share: number,
    work: Work,
    records: WorkerRecords,
    report: Report,
    warn: (worker: string) => boolean,
    expel: (worker: string) => void,
    dishonest: (since: number, found: Found) => void,
  ) {
    this.share = share
    this.#work = work
    this.#records = records
    this.#report = report
    this.#warn = warn
    this.#expel = expel
    this.#dishonest = dishonest
  }

  /** Whether what anyone gave may still turn out to be wrong. */
  get on(): boolean {
    return this.share > 0
  }

  /** A gradient was taken. Perhaps another worker computes its node too. */
  sample({ lo, hi }: Piece, worker: string, answer: Gradient, payload: Uint8Array): void {
    if (Math.random() < this.share)
      this.#work.enqueue(this.#work.add(lo, hi, [voteOf(worker, answer, payload)]))
  }

  /** Looks at the answers to a node that is verified: where two differ, a third decides, or else they are asked again. */
  count(piece: Piece): void {
    const step = this.#work.job!.step
    const { lo, hi } = piece
    const votes = piece.votes!
    const right = agreed(votes)
    if (right === undefined) {
      if (votes.length === 2) {
        this.#report({ event: 'disputed', workers: votes.map(({ worker }) => worker), step, lo, hi })
      }
      this.#work.enqueue(piece)
      return
    }
    const wrong = new Set(votes.filter(({ digest }) => digest !== right).map(({ worker }) => worker))
    this.#work.complete(piece)
    const found = [...wrong].flatMap((worker) => {
      const since = this.#records.since(worker)
      const warned = this.#warn(worker)
      this.#report({ event: 'dishonest', worker, step, lo, hi, ...(warned ? { warned } : {}) })
      if (!warned) {
        this.#records.ban(worker)
        this.#expel(worker)
      }
      return since === undefined ? [] : [{ worker, since }]
    })
    found.sort((a, b) => a.since - b.since)
    for (const { worker, since } of found) this.#dishonest(since, { worker, step, lo, hi })
  }
}
