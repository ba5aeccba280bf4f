import { Convoy, freePort } from '../convoy.ts'
import { Proxy } from './proxy.ts'

const MOST_WORKERS = 5

/** A process with a line to its coordinator that can be made to fail. Where it ends, it is started again. */
class Place {
  readonly proxy: Proxy
  process!: Convoy
  #wanted = true

  constructor(coordinator: number) {
    this.proxy = new Proxy(coordinator)
  }

  /** @param argsTo The command line, for a coordinator at an address. */
  async start(argsTo: (address: string) => readonly string[]): Promise<this> {
    const args = argsTo(`ws://127.0.0.1:${await this.proxy.listen()}`)
    const run = () => {
      if (!this.#wanted) return
      this.process = new Convoy(args)
      void this.process.ended.then(() => setTimeout(run, 100))
    }
    run()
    return this
  }

  /** Has it end for good. */
  leave(): void {
    this.#wanted = false
    this.process.child.kill('SIGTERM')
  }

  kill(): void {
    this.#wanted = false
    this.process.child.kill('SIGCONT')
    this.process.child.kill('SIGKILL')
    this.proxy.close()
  }
}

/** What computes a run: workers, each before a relay or the coordinator itself, and the relays. */
export class Fleet {
  readonly #relays: Place[] = []
  readonly #workers: Place[] = []
  /** Ports that workers go to, by turns. */
  readonly #doors: number[] = []
  readonly #options: readonly string[]
  #started = 0

  /** @param options Of every worker. */
  constructor(options: readonly string[]) {
    this.#options = options
  }

  /** Starts relays and workers for the coordinator at a port. */
  async start(coordinator: number, counts: { relays: number; workers: number }): Promise<void> {
    for (let n = 1; n <= counts.relays; n++) {
      const port = await freePort()
      const relay = new Place(coordinator).start((upstream) => [
        ...['relay', '--upstream', upstream, '--port', String(port), '--worker-name', `relay-${n}`],
      ])
      this.#relays.push(await relay)
      this.#doors.push(port)
    }
    this.#doors.push(coordinator)
    for (let n = 0; n < counts.workers; n++) await this.add()
  }

  /** Starts a worker more, unless there are many. */
  async add(): Promise<void> {
    if (this.#workers.length >= MOST_WORKERS) return
    const n = ++this.#started
    const worker = new Place(this.#doors[(n - 1) % this.#doors.length])
    this.#workers.push(
      await worker.start((address) => [
        ...['worker', '--coordinator', address, '--worker-name', `w${n}`, ...this.#options],
      ]),
    )
  }

  /** Has a worker leave for good, unless it is the last. */
  leave(index: number): void {
    const workers = this.#workers
    if (workers.length > 1) workers.splice(index % workers.length, 1)[0].leave()
  }

  /** Whom a fault befalls: relays stand in front, so that it befalls them at least as often as workers. */
  at(index: number): Place {
    const all = [...this.#relays, ...this.#workers]
    return all[index % all.length]
  }

  kill(): void {
    for (const place of [...this.#relays, ...this.#workers]) place.kill()
  }
}
