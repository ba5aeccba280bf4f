import type { Dataset, Split } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { argmax, crossEntropy, type ModelSpec } from '@convoy/model'
import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import { FORWARD_COST, type Job, type WorkRequest } from '../cluster/index.ts'
import { Samples } from './samples.ts'

/** Images in one piece of work. */
const CHUNK = 64

export interface Score {
  readonly count: number
  /** Mean cost in nats. */
  readonly loss: number
  /** Share of images whose largest logit is their label's. */
  readonly accuracy: number
  /** [label][predicted], counts. */
  readonly confusion: readonly (readonly number[])[]
}

/** The evaluation of a whole test set on the workers. */
export class Evaluation implements Job {
  readonly task = 'evaluate'
  readonly largest = 1
  readonly planned = false
  readonly size = undefined
  readonly cost = FORWARD_COST
  readonly units: number
  readonly epoch: number
  readonly step: number
  readonly logits: Float32Array
  readonly #model: ModelSpec
  readonly #dataset: Dataset
  readonly #samples: Samples
  readonly #ids: Uint32Array
  readonly #progress: (done: number, of: number) => void
  #done = 0

  constructor(
    model: ModelSpec,
    dataset: Dataset,
    at: { epoch: number; step: number },
    progress: (done: number, of: number) => void,
  ) {
    this.#model = model
    this.#dataset = dataset
    this.#samples = new Samples(dataset.test)
    this.#ids = Uint32Array.from({ length: dataset.test.count }, (_, i) => i)
    this.units = Math.ceil(dataset.test.count / CHUNK)
    this.logits = new Float32Array(dataset.test.count * model.classes)
    this.epoch = at.epoch
    this.step = at.step
    this.#progress = progress
  }

  samples(lo: number, hi: number): number {
    return Math.min(hi * CHUNK, this.#ids.length) - lo * CHUNK
  }

  encoding(): 'float32' {
    return 'float32'
  }

  request(lo: number, hi: number): WorkRequest {
    // A worker's own data set serves for training; test images are always sent.
    return this.#samples.request(this.#ids.subarray(lo * CHUNK, hi * CHUNK), true)
  }

  accept(answer: MessageOf<WorkerMessage, 'gradient' | 'evaluation'>, payload: Uint8Array): void {
    const { classes } = this.#model
    const count = this.samples(answer.lo, answer.hi)
    if (answer.kind !== 'evaluation' || payload.byteLength !== 4 * count * classes) {
      throw new ConvoyError('E_MESSAGE', 'an answer to an evaluation has the wrong size', 'Nothing.')
    }
    const logits = new Float32Array(payload.buffer, payload.byteOffset, count * classes)
    // Whether that is the worker's fault or the training's, another worker's answer tells.
    if (!logits.every(Number.isFinite))
      throw new ConvoyError('E_NOT_FINITE', 'logits hold NaN or Inf', 'Check the engine of that machine.')
    this.logits.set(logits, answer.lo * CHUNK * classes)
    this.#done += count
    this.#progress(this.#done, this.#ids.length)
  }

  /** What the logits say, once all are there. */
  score(): Score {
    return scoreOf(this.#model, this.#dataset.test, this.logits)
  }
}

/** What logits [count, classes] say of labelled images. */
export function scoreOf(
  { classes, head }: ModelSpec,
  { labels, count }: Pick<Split, 'labels' | 'count'>,
  logits: Float32Array,
): Score {
  const confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0))
  let loss = 0
  let correct = 0
  for (let i = 0; i < count; i++) {
    const label = labels[i]
    const predicted = argmax(logits, i * classes, classes)
    confusion[label][predicted]++
    if (predicted === label) correct++
    loss += crossEntropy(head, logits, i * classes, classes, label)
  }
  return { count, loss: loss / count, accuracy: correct / count, confusion }
}
