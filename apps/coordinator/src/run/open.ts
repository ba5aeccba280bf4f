import { prepare, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { setFlagsFromString } from 'node:v8'
import { Cluster } from '../cluster/index.ts'
import { trainingSchema, type CoordinatorConfig, type TrainingConfig } from '../config.ts'
import type { Report } from '../events.ts'
import { checkOptimizer, checkRounds, lengthOf, Sizes, Training, type State } from '../training/index.ts'
import { Admission } from './admission.ts'
import { announce } from './announcement.ts'
import { keepConfig, makeFolder } from './folder.ts'
import { identityOf } from './identity.ts'
import { initialParameters } from './initial.ts'
import { Listeners } from './listeners.ts'
import { modelFor, networkOf } from './network.ts'
import { readPast } from './past.ts'
import { Run } from './run.ts'
import { openCheckpoints, SavedStates } from './saved-states.ts'
import { Serving } from './serving.ts'

/**
 * Opens a run: builds the model, finds the newest good checkpoint, and listens for workers.
 *
 * Throws E_RUN where a run of this name has other settings, and whatever the server throws.
 */
export async function openRun(config: CoordinatorConfig, raw: Dataset, listen: Report): Promise<Run> {
  // Every gradient that arrives is megabytes of fresh buffers beside a small heap, for which V8 by default collects
  // everything about once a message, in the middle of a step. It may wait until the heap has grown three times.
  setFlagsFromString('--heap-growing-percent=200')
  const settings = trainingSchema.parse(config)
  check(settings, raw)
  const length = lengthOf(settings, raw.train.count)
  // Before images are whitened, which takes minutes: sizes may not go with it.
  const sizes = new Sizes(settings, raw, length)
  const prepared = await prepare(raw, config.preprocessing, {
    cacheDirectory: config.cache,
    progress: (text) => listen({ event: 'preparing', text }),
  })
  const { dataset, preprocessing } = prepared
  const built = modelFor(config, dataset)
  const folder = await makeFolder(config, built.name)
  const { name, directory } = folder
  const initial = await initialParameters(
    ...[settings, built, prepared, sizes.at(0).size ?? dataset.shape[0], directory],
  ).catch(folder.giveUp)
  const { model } = initial
  const identity = identityOf(settings, dataset, initial.from?.sha256)
  const past = await readPast(directory, model)

  const listeners = new Listeners(directory, config.tensorboard, listen)
  const { report } = listeners
  const { store, saved } = await openCheckpoints(
    folder,
    config.keepCheckpoints,
    identity,
    length.stepsPerEpoch,
    report,
  )
  past.history.checkpoint = saved?.step ?? null
  await keepConfig(directory, config)

  const resumed = saved !== undefined
  const cluster = new Cluster(report, { verify: config.verify, resumed })
  const beginning = (): State => ({ parameters: initial.parameters })
  const ledger = config.ledger ? listeners.lineFile('ledger.jsonl') : undefined
  const { tests, convergence } = past
  const training = new Training({
    ...{ config, model, dataset, sizes, cluster, report, tests, convergence, start: saved ?? beginning() },
    ...(ledger ? { used: (update) => ledger.write({ ...update, samples: [...update.samples] }) } : {}),
  })
  const admission = new Admission(
    config,
    { run: name, model, preprocessing, dataset, smaller: sizes.smaller },
    report,
    saved,
  )
  const serving = new Serving(config, cluster, training, admission, past.history, listeners)
  const url = await serving.listen().catch(async (error: unknown) => {
    await listeners.close()
    return folder.giveUp(error)
  })
  announce({ name, config, model, dataset, initial, training, url }, report)

  const [network, size] = [networkOf(model, dataset, preprocessing), initial.parameters.length]
  const states = new SavedStates({
    ...{ store, training, beginning, report, resumed, every: config.checkpointEvery },
    header: () => ({ identity, size, numerics: admission.numerics, mixed: admission.mixed, network }),
    // What a run goes on from stands in its ledger: the steps after it are done, and noted, again.
    ready: () => ledger?.flush() ?? Promise.resolve(),
  })
  return new Run({ name, directory, url, training, cluster, states, admission, serving, listeners, ledger })
}

/** Refuses options that do not go with one another, or with the images. Throws E_USAGE. */
function check(config: TrainingConfig, dataset: Dataset): void {
  checkOptimizer(config)
  checkRounds(config, dataset)
  const [height, width] = dataset.shape
  const { cutout = 0, resize, sizes, flip, alternatingFlip } = config
  const refuse = (what: string, remedy: string) => {
    throw new ConvoyError('E_USAGE', what, remedy)
  }
  if (cutout > Math.min(height, width)) {
    refuse(
      `--cutout ${cutout} is larger than the images, which are ${height}×${width}`,
      'Give a smaller one: half of the image is usual.',
    )
  }
  if (resize !== undefined && sizes === undefined)
    refuse(`--resize ${resize} is for --sizes, which were not given`, 'Give sizes, as in 16:0.4,24:0.3,32.')
  if (flip && alternatingFlip)
    refuse('--flip and --alternating-flip exclude one another', 'Leave one out, or give --no-flip.')
}
