import { prepare, type Dataset, type PreprocessingSpec, type Split } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { parameterLayout, type ModelSpec } from '@convoy/model'
import { Cluster, Parameters, type ParameterFrame } from '../cluster/index.ts'
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
export class OpenEvaluation {
  readonly url: string
  readonly #model: ModelSpec
  readonly #dataset: Dataset
  readonly #frame: ParameterFrame
  readonly #cluster: Cluster
  readonly #server: CoordinatorServer
  readonly #report: Report

  constructor(
    url: string,
    server: CoordinatorServer,
    cluster: Cluster,
    model: ModelSpec,
    parameters: Float32Array,
    dataset: Dataset,
    report: Report,
  ) {
    this.url = url
    this.#server = server
    this.#cluster = cluster
    this.#model = model
    this.#frame = new Parameters(parameters, 0).current
    this.#dataset = dataset
    this.#report = report
  }

  /** Evaluates the whole test set; undefined where it was stopped. With `flip`, also with each image's mirror image. */
  async run(flip = false): Promise<Evaluated | undefined> {
    const { test, shape } = this.#dataset
    const speed = new Speed()
    const of = flip ? 2 * test.count : test.count
    const evaluate = async (split: Split, before: number) => {
      const set = { ...this.#dataset, test: split }
      const evaluation = new Evaluation(this.#model, set, { epoch: 0, step: 0 }, (done) => {
        speed.mark(before + done)
        this.#report({ event: 'evaluating', done: before + done, of })
      })
      return (await this.#cluster.compute(evaluation, this.#frame)) ? evaluation : undefined
    }
    const plain = await evaluate(test, 0)
    if (!plain) return undefined
    const mirror = flip ? await evaluate(mirrored(test, shape), test.count) : undefined
    if (flip && !mirror) return undefined
    const score = { score: plain.score(), logits: plain.logits, imagesPerSecond: speed.imagesPerSecond }
    if (!mirror) return score
    const means = plain.logits.map((logit, i) => (logit + mirror.logits[i]) / 2)
    return { ...score, flipped: scoreOf(this.#model, test, means) }
  }

  stop(): void {
    this.#cluster.abandon()
  }

  async close(): Promise<void> {
    this.#cluster.dispose()
    await this.#server.close('the evaluation is over')
  }
}

/** Images a second from when all workers are at work: they come one after another, and the first answer of each includes making its plan. */
class Speed {
  #first: { at: number; done: number } | undefined
  #last = { at: 0, done: 0 }

  mark(done: number): void {
    this.#last = { at: performance.now(), done }
    if (done >= WARM_UP) this.#first ??= this.#last
  }

  /** NaN where nothing was measured. */
  get imagesPerSecond(): number {
    const [first, last] = [this.#first, this.#last]
    return first && last.at > first.at ? (1000 * (last.done - first.done)) / (last.at - first.at) : NaN
  }
}

/**
 * Opens a cluster on loopback that only evaluates.
 *
 * @param known How images are normalised, where the weights say it; else it is measured on the data set.
 * Throws E_WEIGHTS_FIT where parameters, model and data set do not belong together.
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
  checkFit(model, parameters, dataset)
  const cluster = new Cluster(report)
  const server = new CoordinatorServer(
    { host: '127.0.0.1', port: 0 },
    {
      cluster,
      largestPayload: 4 * parameters.length,
      admit: () => ({
        run: 'evaluation',
        model,
        preprocessing,
        augmentation: { flip: false, shift: 0 },
        seed: 0,
        // Nothing is trained here: the smallest plan for gradients is the soonest made.
        microBatch: 1,
        smaller: [],
        down: 'float32',
        fingerprint: dataset.fingerprint,
        samples: true,
      }),
      page: () => undefined,
    },
  )
  const url = await server.listen()
  return new OpenEvaluation(url, server, cluster, model, parameters, dataset, report)
}

/** Throws E_WEIGHTS_FIT where parameters, model and data set do not belong together. */
function checkFit(model: ModelSpec, { length }: Float32Array, { classes, origin }: Dataset): void {
  const { size } = parameterLayout(model)
  if (length === size && classes.length === model.classes) return
  throw new ConvoyError(
    'E_WEIGHTS_FIT',
    length === size
      ? `the weights tell ${model.classes} classes apart; ${origin} has ${classes.length}`
      : `the weights are ${length} numbers; ${model.name} has ${size}`,
    'Give --data the set that the weights were trained on, or fine-tune them: `convoy train --data SOURCE --init FILE`.',
  )
}
