import type { LiveWorker, LiveWorkerState } from '@convoy/protocol'
import type { Cluster } from '../../cluster/index.ts'
import { LEFT, type RunEvent } from '../../events.ts'

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
      if (this.#gone.size > GONE) {
        const oldest = this.#gone.keys().next().value!
        this.#gone.delete(oldest)
        this.#engines.delete(oldest)
      }
    }
  }

  /** Bytes to and from all workers so far. */
  get bytes(): { sent: number; received: number } {
    return this.#cluster.traffic
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
    const last = this.#marks.at(-1)
    // A worker's time begins with its first samples.
    const lately = (name: string) => {
      const first = this.#marks.find(({ by }) => (by.get(name)?.samples ?? 0) > 0)
      const seconds = first && last ? (last.at - first.at) / 1000 : 0
      if (seconds === 0) return { rate: 0, blame: 0 }
      const [from, to] = [first!.by.get(name)!, last!.by.get(name)!]
      const blame = Math.min(1, (to.waitedFor - from.waitedFor) / seconds)
      return { rate: (to.samples - from.samples) / seconds, blame }
    }
    const figures = new Map(
      [...states].map(([name, state]) => [
        name,
        state === 'left' || state === 'lost' ? { rate: 0, blame: 0 } : lately(name),
      ]),
    )
    const all = [...figures.values()].reduce((sum, { rate }) => sum + rate, 0)
    const round = (value: number) => Number(value.toPrecision(3))
    return [...states].map(([name, state]) => {
      const tally = this.#cluster.tallies.get(name)
      const { rate, blame } = figures.get(name)!
      return {
        name,
        engine: this.#engines.get(name) ?? '',
        state,
        share: all > 0 ? round(rate / all) : 0,
        imagesPerSecond: round(rate),
        blame: round(blame),
        samples: tally?.samples ?? 0,
        stalls: tally?.stalls ?? 0,
        refused: tally?.refused ?? 0,
        bytesSent: tally?.sent ?? 0,
        bytesReceived: tally?.received ?? 0,
      }
    })
  }
}
