import { ConvoyError } from '@convoy/errors'
import type { Member } from './member.ts'
import type { Pace } from './pace.ts'
import type { Tally } from './tally.ts'

/** Refused answers in a row before a worker is set aside. */
const STRIKES = 3
/** For how long the first time, in seconds; it doubles with each further time. */
const SET_ASIDE = 10
/** Workers that are remembered; beyond them, those that are gone are forgotten, first those that did nothing. */
const MOST_REMEMBERED = 1_024

/** What is remembered of a worker across its connections. */
interface WorkerRecord {
  readonly pace: Pace
  readonly tally: Tally
  /** The process that had the name last. */
  instance: string
  strikes: number
  timesAside: number
  /** Until when it gets no work, in ms of `performance.now()`; Infinity where it was banned. */
  asideUntil: number
  /** The first step that may hold a gradient of this worker; undefined where none was taken. */
  since: number | undefined
  /** Whether it was told that it was wrong, and stayed. */
  warned: boolean
}

/** What every worker did, well and ill, by its name: how fast it is, how often it was refused, whether it is set aside. */
export class WorkerRecords {
  readonly #records = new Map<string, WorkerRecord>()
  readonly #tallies = new Map<string, Tally>()
  /** Bytes to and from workers that are not remembered any more. */
  readonly #forgotten = { sent: 0, received: 0 }
  readonly #resumed: boolean

  /** @param resumed Whether the run began in another process, so that it is not known here who took part before. */
  constructor(resumed = false) {
    this.#resumed = resumed
  }

  get size(): number {
    return this.#records.size
  }

  get tallies(): ReadonlyMap<string, Tally> {
    return this.#tallies
  }

  /** Bytes to and from all workers, forgotten ones too. */
  get traffic(): { sent: number; received: number } {
    let { sent, received } = this.#forgotten
    for (const tally of this.#tallies.values()) {
      sent += tally.sent
      received += tally.received
    }
    return { sent, received }
  }

  /** The speed and deeds of a worker that was here before. */
  of(name: string): { pace: Pace; tally: Tally } | undefined {
    return this.#records.get(name)
  }

  join({ name, instance, pace, tally }: Member): void {
    const known = this.#records.get(name)
    if (known) known.instance = instance
    else {
      const blank = { strikes: 0, timesAside: 0, asideUntil: 0, since: undefined, warned: false }
      this.#records.set(name, { instance, pace, tally, ...blank })
      this.#tallies.set(name, tally)
    }
  }

  /**
   * Keeps memory bounded whatever names peers give themselves. Who was banned is never forgotten.
   *
   * @param present Whether the worker of this name is here.
   * @param useful Whether those who gave gradients must be remembered, since these may still turn out to be wrong.
   */
  forget(present: (name: string) => boolean, useful: boolean): void {
    if (this.#records.size <= MOST_REMEMBERED) return
    let worst: string | undefined
    for (const [name, { since, asideUntil }] of this.#records) {
      if (present(name) || asideUntil === Infinity) continue
      if (useful && since !== undefined) continue
      worst ??= name
      if (since !== undefined) continue
      worst = name
      break
    }
    if (worst === undefined) return
    const { sent, received } = this.#records.get(worst)!.tally
    this.#forgotten.sent += sent
    this.#forgotten.received += received
    this.#tallies.delete(worst)
    this.#records.delete(worst)
  }

  /** Whether a worker gets no work now. */
  aside(name: string): boolean {
    return (this.#records.get(name)?.asideUntil ?? 0) > performance.now()
  }

  /** Whether a gradient of this worker was ever taken. */
  proven(name: string): boolean {
    return this.#records.get(name)?.since !== undefined
  }

  /** An answer was taken; a gradient's step is given. */
  took(name: string, step: number | undefined): void {
    const record = this.#records.get(name)!
    record.strikes = 0
    if (step !== undefined) record.since ??= this.#resumed ? 0 : step
  }

  /** The first step that may hold a gradient of this worker; undefined where none was taken. */
  since(name: string): number | undefined {
    return this.#records.get(name)?.since
  }

  /** Whether a worker may be told that it was wrong and stay: once. */
  warn(name: string): boolean {
    const record = this.#records.get(name)
    if (!record || record.warned) return false
    record.warned = true
    return true
  }

  /** Counts something unusable. Returns for how many seconds the worker is set aside by it, if it is. */
  strike(name: string): number | undefined {
    const record = this.#records.get(name)
    if (!record) return undefined
    record.tally.refused++
    if (++record.strikes < STRIKES) return undefined
    const seconds = SET_ASIDE * 2 ** record.timesAside++
    record.strikes = 0
    record.asideUntil = performance.now() + 1000 * seconds
    return seconds
  }

  /** Never lets a worker take part again. Returns the first step that may hold a gradient of it. */
  ban(name: string): number | undefined {
    const record = this.#records.get(name)
    if (!record) return undefined
    record.asideUntil = Infinity
    return record.since
  }

  /** Throws E_DISHONEST for a worker that was banned, by its name or process. */
  checkBan({ name, instance }: { name: string; instance: string }): void {
    for (const [known, record] of this.#records) {
      if (record.asideUntil === Infinity && (known === name || record.instance === instance)) throw banned()
    }
  }
}

/** What a worker is told that gave wrong gradients. */
export function banned(): ConvoyError {
  return new ConvoyError(
    'E_DISHONEST',
    'other workers get another gradient from the same work: this machine computes wrongly',
    'Check its memory and its clock rates before you let it take part under another name.',
  )
}
