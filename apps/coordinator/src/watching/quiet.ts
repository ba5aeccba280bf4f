import type { Report, RunEvent } from '../events.ts'
import { Budget } from '../server/index.ts'

/** Events that peers can bring about as often as they like. */
const provoked: ReadonlySet<RunEvent['event']> = new Set([
  'workerJoined',
  'workerLeft',
  'workerStalled',
  'workerRecovered',
  'refused',
  'setAside',
])
/** So many of a kind are told at once, and so many a second for ever: a flood must not fill a disk. */
const TOLD = { burst: 1_000, perSecond: 1 }
/** Milliseconds after which it is told how many were not. */
const TELL_EVERY = 10_000

/** Passes events on, except what peers bring about in masses: of that, the first, and then how many more there were. */
export class QuietLog {
  readonly #next: Report
  readonly #budgets = new Map<string, Budget>()
  readonly #muted = new Map<RunEvent['event'], number>()
  #toldAt = -Infinity

  constructor(next: Report) {
    this.#next = next
  }

  /** @param now In milliseconds. */
  hear(event: RunEvent, now = performance.now()): void {
    if (this.#muted.size > 0 && (now - this.#toldAt > TELL_EVERY || event.event === 'done')) {
      this.#toldAt = now
      for (const [of, count] of this.#muted) this.#next({ event: 'muted', of, count })
      this.#muted.clear()
    }
    if (provoked.has(event.event)) {
      let budget = this.#budgets.get(event.event)
      if (!budget) this.#budgets.set(event.event, (budget = new Budget(TOLD, now)))
      if (!budget.take(now)) {
        this.#muted.set(event.event, (this.#muted.get(event.event) ?? 0) + 1)
        return
      }
    }
    this.#next(event)
  }
}
