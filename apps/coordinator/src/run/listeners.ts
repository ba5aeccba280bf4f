import path from 'node:path'
import type { Report, RunEvent } from '../events.ts'
import { LineFile, QuietLog, TensorBoardLog } from '../watching/index.ts'

/** Events that metrics.jsonl does not keep: they are only progress. */
const passing: ReadonlySet<RunEvent['event']> = new Set(['evaluating', 'listening', 'waiting', 'checkpoint'])

/** Who hears what happens in a run: counters hear all; its logs, the display and the page are spared floods. */
export class Listeners {
  readonly #directory: string
  readonly #metrics: LineFile
  readonly #tensorboard: TensorBoardLog | undefined
  readonly #counters: Report[] = []
  readonly #listeners: Report[]
  readonly #quiet = new QuietLog((event) => {
    if (!passing.has(event.event)) this.#metrics.write({ time: Date.now(), ...event })
    for (const hear of this.#listeners) hear(event)
  })

  /**
   * @param directory The run's folder.
   * @param tensorboard Whether curves are written for TensorBoard.
   */
  constructor(directory: string, tensorboard: boolean, listen: Report) {
    this.#directory = directory
    this.#metrics = this.lineFile('metrics.jsonl')
    this.#listeners = [listen]
    this.#tensorboard = tensorboard ? new TensorBoardLog(path.join(directory, 'tensorboard')) : undefined
    if (this.#tensorboard) this.add(this.#tensorboard)
  }

  readonly report: Report = (event) => {
    for (const count of this.#counters) count(event)
    this.#quiet.hear(event)
  }

  count(counter: { hear: Report }): void {
    this.#counters.push((event) => counter.hear(event))
  }

  add(listener: { hear: Report }): void {
    this.#listeners.push((event) => listener.hear(event))
  }

  /** A file in the run's folder. A disk that refuses must not end the training, but be told. */
  lineFile(file: string): LineFile {
    return new LineFile(path.join(this.#directory, file), (message) =>
      this.report({ event: 'logFailed', file, message }),
    )
  }

  async close(): Promise<void> {
    await this.#metrics.close()
    this.#tensorboard?.close()
  }
}
