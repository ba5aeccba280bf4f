import type { Cluster } from '../cluster/index.ts'
import type { RunEvent } from '../events.ts'
import { parametersSha256, type Training } from '../training/index.ts'
import type { LineFile } from '../watching/index.ts'
import type { Admission } from './admission.ts'
import type { Listeners } from './listeners.ts'
import type { SavedStates } from './saved-states.ts'
import type { Serving } from './serving.ts'

export type DoneEvent = Extract<RunEvent, { event: 'done' }>

/** What a run is made of. */
export interface Rooms {
  readonly name: string
  readonly directory: string
  /** Where workers connect. */
  readonly url: string
  readonly training: Training
  readonly cluster: Cluster
  readonly states: SavedStates
  readonly admission: Admission
  readonly serving: Serving
  readonly listeners: Listeners
  readonly ledger: LineFile | undefined
}

/** A run that is open: workers can join; `train` trains. */
export class Run {
  readonly name: string
  readonly directory: string
  /** Where workers connect. */
  readonly url: string
  readonly training: Training
  readonly cluster: Cluster
  readonly #rooms: Rooms

  constructor(rooms: Rooms) {
    this.#rooms = rooms
    this.name = rooms.name
    this.directory = rooms.directory
    this.url = rooms.url
    this.training = rooms.training
    this.cluster = rooms.cluster
  }

  /** How many workers are worth having, for autoscalers: undefined until it was measured, 0 when the run is over. */
  get workersWanted(): number | undefined {
    return this.training.workersWanted
  }

  /** Trains to the end, or until `stop`; either way with a checkpoint of where it got to. Called again, it goes on. */
  async train(): Promise<DoneEvent> {
    const { states, listeners } = this.#rooms
    await this.training.run(states, (epochEnded) => states.afterStep(epochEnded))
    await states.finish()
    const done = this.#done()
    listeners.report(done)
    return done
  }

  #done(): DoneEvent {
    const { training, admission } = this.#rooms
    const { progress, testing, reporter } = training
    const { step, epoch, seconds } = progress
    const { until } = testing
    const work = training.sizes.work(step)
    const samples = epoch * training.length.images + progress.epochSamples
    return {
      event: 'done',
      run: this.name,
      parametersSha256: parametersSha256(training.weights.values),
      step,
      epoch,
      work,
      imagesPerSecond: reporter.seconds > 0 ? reporter.samples / reporter.seconds : 0,
      trainLoss: Number.isFinite(reporter.trainLoss) ? reporter.trainLoss : null,
      testAccuracy: training.testAccuracy ?? testing.score?.accuracy ?? null,
      seconds,
      mixed: admission.mixed,
      numerics: admission.numericsClass,
      finished: training.finished,
      ...(until === undefined
        ? {}
        : { until: { accuracy: until, reached: training.reached, epochs: epoch, seconds, samples, work } }),
    }
  }

  /** Ends the training after the update at hand. */
  stop(): void {
    this.training.stop()
  }

  /** Dismisses the workers, those too that still come, and goes on answering: for a run that is over. */
  dismiss(message: string): void {
    const { cluster, serving } = this.#rooms
    cluster.dispose()
    serving.dismiss(message)
  }

  /** Dismisses the workers and lets go of everything. With `retryAfter`, in seconds, they look for a coordinator again. */
  async close(message: string, retryAfter?: number): Promise<void> {
    const { cluster, serving, listeners, ledger } = this.#rooms
    cluster.dispose()
    await serving.close(message, retryAfter)
    await listeners.close()
    await ledger?.close()
  }
}
