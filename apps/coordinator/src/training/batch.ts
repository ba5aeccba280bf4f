import type { Arena } from '@convoy/arena'
import { leafCount, leafRange, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import { ReductionTree } from '@convoy/reduction'
import type { Job, WorkRequest } from '../cluster/index.ts'
import type { Entry } from './ledger.ts'
import { Samples } from './samples.ts'
import type { Round } from './schedule.ts'
import type { Size } from './sizes.ts'

/** The most samples that one request carries, so that messages stay bounded whatever the batch size. */
const LARGEST_REQUEST = 1024

export interface BatchOptions {
  readonly wire: 'float32' | 'bf16'
  /** Leaves in a node that bf16 rounds; a power of two. */
  readonly wireLeaves: number
  /** Where there are rounds, which have a leaf for each: then bf16 rounds what one gives. */
  readonly replicas?: number | undefined
}

/**
 * The gradient of one batch, cut into leaves, or the differences of a round's replicas, which are its leaves: summed by the fixed tree.
 * One object serves all steps.
 */
export class Batch implements Job {
  readonly task = 'gradient'
  readonly planned = true
  largest = 1
  size: number | undefined
  cost = 1
  round: Round | undefined
  readonly tree: ReductionTree
  /** The nodes that were taken, in the order in which they came. */
  readonly entries: Entry[] = []
  units = 0
  epoch = 0
  step = 0
  readonly #options: BatchOptions
  readonly #samples: Samples
  #ids: Uint32Array = new Uint32Array()
  #leaf = 1

  /**
   * @param arena Where gradients are summed.
   * @param largestLeaf The most samples that a leaf has in any step.
   */
  constructor(dataset: Dataset, arena: Arena, largestLeaf: number, options: BatchOptions) {
    const wireLeaves = options.replicas === undefined ? options.wireLeaves : 1
    this.tree = new ReductionTree(arena, options.wire === 'bf16' ? wireLeaves : undefined)
    this.#samples = new Samples(dataset.train, Math.max(largestLeaf, LARGEST_REQUEST))
    this.#options = { ...options, wireLeaves }
  }

  /** Points at a step's samples. `ids` must stay as they are until the step is done. */
  begin(
    ids: Uint32Array,
    at: { epoch: number; step: number },
    { size, leaf, cost }: Size,
    round?: Round,
  ): this {
    this.#ids = ids
    this.epoch = at.epoch
    this.step = at.step
    this.size = size
    this.cost = cost
    this.round = round
    this.#leaf = leaf
    this.units = leafCount(ids.length, leaf)
    const power = 2 ** Math.floor(Math.log2(Math.max(1, Math.floor(LARGEST_REQUEST / leaf))))
    const { wire, wireLeaves } = this.#options
    this.largest = wire === 'bf16' ? Math.min(power, wireLeaves) : power
    this.tree.begin(this.units)
    this.entries.length = 0
    return this
  }

  /** The samples of leaves [lo, hi). */
  ids(lo: number, hi: number): Uint32Array {
    const from = leafRange(lo, this.#ids.length, this.#leaf)[0]
    return this.#ids.subarray(from, from + this.samples(lo, hi))
  }

  samples(lo: number, hi: number): number {
    const [images, leaf] = [this.#ids.length, this.#leaf]
    return leafRange(hi - 1, images, leaf)[1] - leafRange(lo, images, leaf)[0]
  }

  encoding(lo: number, hi: number): 'float32' | 'bf16' {
    return this.tree.isRounded(lo, hi) ? 'bf16' : 'float32'
  }

  request(lo: number, hi: number, withSamples: boolean): WorkRequest {
    return this.#samples.request(this.ids(lo, hi), withSamples)
  }

  accept(
    answer: MessageOf<WorkerMessage, 'gradient' | 'evaluation'>,
    payload: Uint8Array,
    worker: string,
  ): void {
    if (answer.kind !== 'gradient') throw unusable('an evaluation instead of a gradient')
    const { lo, hi, loss, correct, count } = answer
    if (count !== this.samples(lo, hi) || correct > count)
      throw unusable(`the counts of [${lo}, ${hi}) are wrong`)
    if (!Number.isFinite(loss)) {
      throw new ConvoyError('E_NOT_FINITE', 'the loss is not finite', 'Check the engine of that machine.')
    }
    const bf16 = this.encoding(lo, hi) === 'bf16'
    const size = bf16 ? 2 : 4
    if (payload.byteLength % size !== 0) throw unusable(`a gradient has ${payload.byteLength} bytes`)
    const { buffer, byteOffset, byteLength } = payload
    const gradient = bf16
      ? new Uint16Array(buffer, byteOffset, byteLength / size)
      : new Float32Array(buffer, byteOffset, byteLength / size)
    this.tree.accept(lo, hi, gradient, { loss, correct, count })
    this.entries.push({ lo, hi, worker })
  }
}

function unusable(what: string): ConvoyError {
  return new ConvoyError('E_GRADIENT', what, 'Check the memory and the engine of that machine.')
}
