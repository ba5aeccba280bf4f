import path from 'node:path'
import type { Report } from '../events.ts'
import type { EarlierStates, State, Training } from '../training/index.ts'
import { CheckpointStore, type Checkpoint, type CheckpointHeader } from './checkpoints.ts'
import type { Folder } from './folder.ts'
import { checkIdentity } from './identity.ts'

/** What a checkpoint says of the run beside where training stands. */
export type RunHeader = Pick<CheckpointHeader, 'identity' | 'size' | 'numerics' | 'mixed' | 'network'>

export interface SavedStatesOptions {
  readonly store: CheckpointStore
  readonly training: Training
  /** Time between checkpoints, in seconds. */
  readonly every: number
  /** The state that the run began with. */
  readonly beginning: () => State
  /** What is written with the state of now. */
  readonly header: () => RunHeader
  /** Awaited before each checkpoint is written. */
  readonly ready: () => Promise<void>
  readonly report: Report
  /** Whether the present state is that of a checkpoint. */
  readonly resumed: boolean
}

/** The checkpoints of a run, and the newest good one. Throws E_RUN where that is of another run than `identity`. */
export async function openCheckpoints(
  { name, directory }: Folder,
  keep: number,
  identity: string,
  stepsPerEpoch: number,
  report: Report,
): Promise<{ store: CheckpointStore; saved: Checkpoint | undefined }> {
  const endsEpoch = (step: number) => step % stepsPerEpoch === 0
  const store = new CheckpointStore(path.join(directory, 'checkpoints'), keep, endsEpoch)
  const found = await store.newest((file, error) =>
    report({ event: 'checkpointPassedOver', path: file, message: error.message }),
  )
  const saved = found?.checkpoint
  if (saved) checkIdentity(name, identity, saved.identity)
  await store.clean()
  return { store, saved }
}

/** The run's checkpoints: when they are written, and what is gone back to. */
export class SavedStates implements EarlierStates {
  readonly #options: SavedStatesOptions
  #step: number
  #at = performance.now()

  constructor(options: SavedStatesOptions) {
    this.#options = options
    this.#step = options.resumed ? options.training.progress.step : -1
  }

  /** Saves the state after an update where it is time. */
  afterStep(epochEnded: boolean): void {
    const { store, every } = this.#options
    const due = performance.now() - this.#at > 1000 * every
    if (epochEnded || (due && !store.busy)) void this.save()
  }

  /** Saves the state that the training ends with. */
  async finish(): Promise<void> {
    const { store, training } = this.#options
    if (this.#step !== training.progress.step || store.busy) await this.save()
  }

  async save(): Promise<void> {
    const { store, training, header, ready, report } = this.#options
    const { progress, weights } = training
    const { step } = progress
    this.#step = step
    this.#at = performance.now()
    try {
      const file = await store.write({ ...progress, ...header(), ...weights.state }, ready)
      if (file !== undefined) report({ event: 'checkpoint', step, path: file })
    } catch (error) {
      // Training goes on and the last good checkpoint stays; the next one is tried in its turn.
      report({ event: 'checkpointFailed', step, message: (error as Error).message })
    }
  }

  async rewind(last: number): Promise<State> {
    const { store, beginning } = this.#options
    return (await store.rewind(last)) ?? beginning()
  }
}
