import { prepare, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { parameterLayout, type ModelSpec } from '@convoy/model'
import { Cluster } from './cluster.ts'
import type { TrainingConfig } from './config.ts'
import { Evaluation, type Score } from './evaluation.ts'
import type { Report } from './events.ts'
import { Parameters } from './parameters.ts'
import { CoordinatorServer } from './server.ts'

/** An evaluation that is open for workers on this machine. */
export interface OpenEvaluation {
  readonly url: string
  /** Evaluates the whole test set; undefined where it was stopped. */
  run(): Promise<{ score: Score; logits: Float32Array } | undefined>
  stop(): void
  close(): Promise<void>
}

/** Opens a cluster on loopback that only evaluates. Throws E_MODEL where parameters and model do not belong together. */
export async function openEvaluation(
  model: ModelSpec,
  parameters: Float32Array,
  raw: Dataset,
  config: Pick<TrainingConfig, 'preprocessing' | 'microBatch' | 'seed'>,
  report: Report,
): Promise<OpenEvaluation> {
  const { dataset, preprocessing } = await prepare(raw, config.preprocessing, {})
  const { size } = parameterLayout(model)
  if (parameters.length !== size || dataset.classes.length !== model.classes) {
    throw new ConvoyError(
      'E_MODEL',
      `the model has ${size} parameters and ${model.classes} classes; given are ${parameters.length} and a data set of ${dataset.classes.length}`,
      'Use the data set and model that the run was trained with.',
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
        seed: config.seed,
        microBatch: config.microBatch,
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
    async run() {
      const evaluation = new Evaluation(model, dataset, { epoch: 0, step: 0 }, (done, of) =>
        report({ event: 'evaluating', done, of }),
      )
      if (!(await cluster.compute(evaluation, frame))) return undefined
      return { score: evaluation.score(), logits: evaluation.logits }
    },
    stop: () => cluster.abandon(),
    async close() {
      cluster.dispose()
      await server.close('the evaluation is over')
    },
  }
}
