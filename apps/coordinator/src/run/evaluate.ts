import { prepare, type Dataset, type PreprocessingSpec, type Split } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { parameterLayout, type ModelSpec } from '@convoy/model'
import { Cluster, Parameters } from '../cluster/index.ts'
import type { TrainingConfig } from '../config.ts'
import { Evaluation, scoreOf, type Score } from '../training/index.ts'
import type { Report } from '../events.ts'
import { CoordinatorServer } from '../server/index.ts'

export interface Evaluated {
  readonly score: Score
  /** [count, classes] */
  readonly logits: Float32Array
  /** What the means of the logits of image and mirror image say. */
  readonly flipped?: Score
  /** Over the time in which all workers were at work. */
  readonly imagesPerSecond: number
}

/** A split with every image mirrored left to right. */
function mirrored(split: Split, [height, width, channels]: Dataset['shape']): Split {
  const pixels = split.pixels.slice()
  const rows = split.count * height
  for (let row = 0; row < rows; row++) {
    for (let x = 0; x < width; x++) {
      const from = (row * width + (width - 1 - x)) * channels
      const to = (row * width + x) * channels
      for (let c = 0; c < channels; c++) pixels[to + c] = split.pixels[from + c]
    }
  }
  return { ...split, pixels }
}

/** Images after which every worker is at work, about; the speed is measured from there. */
const WARM_UP = 1_000

/** An evaluation that is open for workers on this machine. */
export interface OpenEvaluation {
  readonly url: string
  /** Evaluates the whole test set; undefined where it was stopped. With `flip`, also with each image's mirror image. */
  run(flip?: boolean): Promise<Evaluated | undefined>
  stop(): void
  close(): Promise<void>
}

/**
 * Opens a cluster on loopback that only evaluates.
 *
 * @param known How images are normalised, where the weights say it; else it is measured on the data set.
 * Throws E_MODEL where parameters, model and data set do not belong together.
 */
export async function openEvaluation(
  model: ModelSpec,
  parameters: Float32Array,
  raw: Dataset,
  config: Pick<TrainingConfig, 'preprocessing'>,
  report: Report,
  known?: PreprocessingSpec,
): Promise<OpenEvaluation> {
  const { dataset, preprocessing } = known
    ? { dataset: raw, preprocessing: known }
    : await prepare(raw, config.preprocessing, {})
  const { size } = parameterLayout(model)
  if (parameters.length !== size || dataset.classes.length !== model.classes) {
    throw new ConvoyError(
      'E_WEIGHTS_FIT',
      parameters.length === size
        ? `the weights tell ${model.classes} classes apart; ${dataset.origin} has ${dataset.classes.length}`
        : `the weights are ${parameters.length} numbers; ${model.name} has ${size}`,
      'Give --data the set that the weights were trained on, or fine-tune them: `convoy train --data SOURCE --init FILE`.',
    )
  }
  const cluster = new Cluster(report)
  const server = new CoordinatorServer(
    { host: '127.0.0.1', port: 0 },
    {
      cluster,
      largestPayload: 4 * size,
      admit: () => ({
        run: 'evaluation',
        model,
        preprocessing,
        augmentation: { flip: false, shift: 0 },
        seed: 0,
        // Nothing is trained here: the smallest plan for gradients is the soonest made.
        microBatch: 1,
        fingerprint: dataset.fingerprint,
        samples: true,
      }),
      page: () => undefined,
    },
  )
  const url = await server.listen()
  const frame = new Parameters(parameters, 0).current
  return {
    url,
    async run(flip = false) {
      // The workers come one after another, and the first answer of each includes making its plan.
      let first: { at: number; done: number } | undefined
      let last = { at: 0, done: 0 }
      const evaluate = async (set: Dataset, before: number) => {
        const evaluation = new Evaluation(model, set, { epoch: 0, step: 0 }, (done, of) => {
          last = { at: performance.now(), done: before + done }
          if (last.done >= WARM_UP) first ??= last
          report({ event: 'evaluating', done: before + done, of: flip ? 2 * of : of })
        })
        return (await cluster.compute(evaluation, frame)) ? evaluation : undefined
      }
      const plain = await evaluate(dataset, 0)
      if (!plain) return undefined
      const mirror = flip
        ? await evaluate({ ...dataset, test: mirrored(dataset.test, dataset.shape) }, dataset.test.count)
        : undefined
      if (flip && !mirror) return undefined
      const speed =
        first && last.at > first.at ? (1000 * (last.done - first.done)) / (last.at - first.at) : NaN
      return {
        score: plain.score(),
        logits: plain.logits,
        imagesPerSecond: speed,
        ...(mirror
          ? {
              flipped: scoreOf(
                model,
                dataset.test,
                plain.logits.map((logit, i) => (logit + mirror.logits[i]) / 2),
              ),
            }
          : {}),
      }
    },
    stop: () => cluster.abandon(),
    async close() {
      cluster.dispose()
      await server.close('the evaluation is over')
    },
  }
}
