import type { LiveWorker, LiveWorkerState } from '@convoy/protocol'
import type { Cluster } from '../cluster.ts'
import { LEFT, type RunEvent } from '../events.ts'

/** Seconds over which speed, share and blame are taken. */
const LATELY = 10
/** Workers that are gone and still shown. */
const GONE = 20

interface Mark {
  readonly at: number
  readonly by: Map<string, { samples: number; waitedFor: number }>
}

/** The workers as the page shows them: those that are here, and those that were. */
export class Roster {
  readonly #cluster: Cluster
  readonly #engines = new Map<string, string>()
  readonly #gone = new Map<string, 'left' | 'lost'>()
  #marks: Mark[] = []

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  hear(event: RunEvent): void {
    if (event.event === 'workerJoined') {
      this.#engines.set(event.worker, event.engine)
      this.#gone.delete(event.worker)
    } else if (event.event === 'workerLeft') {
      this.#gone.set(event.worker, event.reason === LEFT ? 'left' : 'lost')
      if (this.#gone.size > GONE) this.#gone.delete(this.#gone.keys().next().value!)
    }
  }

  /** Bytes to and from all workers so far. */
  get bytes(): { sent: number; received: number } {
    let [sent, received] = [0, 0]
    for (const tally of this.#cluster.tallies.values()) {
      sent += tally.sent
      received += tally.received
    }
    return { sent, received }
  }

  /** Notes how far everyone is; to be called about once a second. */
  mark(now = performance.now()): void {
    const by = new Map(
      [...this.#cluster.tallies].map(([name, { samples, waitedFor }]) => [name, { samples, waitedFor }]),
    )
    this.#marks.push({ at: now, by })
    while (this.#marks.length > 2 && now - this.#marks[1].at > 1000 * LATELY) this.#marks.shift()
  }

  workers(): LiveWorker[] {
    const states = new Map<string, LiveWorkerState>(this.#gone)
    for (const member of this.#cluster.members) {
      const state = this.#cluster.setAside(member) ? 'set aside' : member.state
      states.set(member.name, state === 'gone' ? 'lost' : state)
    }
    const first = this.#marks[0]
    const last = this.#marks.at(-1)
    const seconds = first && last ? (last.at - first.at) / 1000 : 0
    const during = (name: string, what: 'samples' | 'waitedFor') =>
      (last?.by.get(name)?.[what] ?? 0) - (first?.by.get(name)?.[what] ?? 0)
    const all = [...states.keys()].reduce((sum, name) => sum + during(name, 'samples'), 0)
    const round = (value: number) => (Number.isFinite(value) ? Number(value.toPrecision(3)) : 0)
    return [...states].map(([name, state]) => {
      const tally = this.#cluster.tallies.get(name)
      const here = state !== 'left' && state !== 'lost'
      return {
        name,
        engine: this.#engines.get(name) ?? '',
        state,
        share: here && all > 0 ? round(during(name, 'samples') / all) : 0,
        imagesPerSecond: here && seconds > 0 ? round(during(name, 'samples') / seconds) : 0,
        blame: here && seconds > 0 ? round(Math.min(1, during(name, 'waitedFor') / seconds)) : 0,
        samples: tally?.samples ?? 0,
        stalls: tally?.stalls ?? 0,
        refused: tally?.refused ?? 0,
        bytesSent: tally?.sent ?? 0,
        bytesReceived: tally?.received ?? 0,
      }
    })
  }
}
