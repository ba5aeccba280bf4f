import type { Arena, Slot } from '@convoy/arena'
import { leafCount, leafRange, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import { ReductionTree, type Encoding, type Rounding } from '@convoy/reduction'
import type { Job, Tail, WorkRequest } from '../cluster/index.ts'
import type { Entry } from './ledger.ts'
import { Samples } from './samples.ts'
import type { Round } from './schedule.ts'
import type { Size } from './sizes.ts'

/** The most samples that a request to a worker carries, unless a single leaf has more: messages stay bounded whatever the batch size. */
const LARGEST_REQUEST = 1024

/** Bytes of images that a request to a relay carries at most, unless a single leaf has more. */
const LARGEST_SUM = 1 << 27

export interface BatchOptions {
  readonly wire: Encoding
  /** Leaves in a node that is rounded, where `wire` is shorter than float32; a power of two. */
  readonly wireLeaves: number
  /** Where there are rounds, which have a leaf for each: then what one gives is rounded. */
  readonly replicas?: number | undefined
  readonly seed: number
  /** With verification a relay's nodes are such as a worker can repeat. */
  readonly verify: number
  /** Where a gradient is cut that may come in two frames; 0 where none may. */
  readonly cut?: number
}

/**
 * The gradient of one batch, cut into leaves, or the differences of a round's replicas, which are its leaves: summed by the fixed tree.
 * One object serves all steps.
 */
export class Batch implements Job {
  readonly task = 'gradient'
  readonly planned = true
  largest = 1
  largestSum = 1
  readonly leastSum: number
  size: number | undefined
  cost = 1
  round: Round | undefined
  readonly tree: ReductionTree
  /** The nodes that were taken, in the order in which they came. */
  readonly entries: Entry[] = []
  readonly cut: number
  units = 0
  epoch = 0
  step = 0
  readonly #rounding: Rounding | undefined
  readonly #samples: Samples
  readonly #imageBytes: number
  readonly #whole: boolean
  #ids: Uint32Array = new Uint32Array()
  #leaf = 1
  #onTail: ((gradient: Slot) => void) | undefined

  /** @param arena Where gradients are summed. */
  constructor(dataset: Dataset, arena: Arena, options: BatchOptions) {
    const rounding = roundingOf(options)
    this.#rounding = rounding && { ...rounding, seed: options.seed }
    this.#imageBytes = dataset.train.pixels.byteLength / dataset.train.count
    // A sum of rounded nodes is in float32: as long as two nodes in bf16, or four in int8.
    this.leastSum = rounding ? (rounding.encoding === 'bf16' ? 2 : 4) * rounding.leaves : 0
    this.#whole = options.verify === 0
    // What is compared, rounded all together or short anyway comes as a whole.
    const whole = options.verify > 0 || options.replicas !== undefined || options.wire === 'int8'
    this.cut = whole ? 0 : (options.cut ?? 0)
    this.tree = new ReductionTree(arena, this.#rounding, this.cut)
    this.#samples = new Samples(dataset.train)
  }

  /**
   * Points at a step's samples. `ids` must stay as they are until the step is done.
   *
   * @param onTail Told when the gradient is complete from the cut on, unless all of it is by then.
   */
  begin(
    ids: Uint32Array,
    at: { epoch: number; step: number },
    { size, leaf, cost }: Size,
    round?: Round,
    onTail?: (gradient: Slot) => void,
  ): this {
    this.#ids = ids
    this.#onTail = onTail
    this.epoch = at.epoch
    this.step = at.step
    this.size = size
    this.cost = cost
    this.round = round
    this.#leaf = leaf
    this.units = leafCount(ids.length, leaf)
    this.largest = Math.min(largestNode(leaf), this.#rounding?.leaves ?? Infinity)
    const most = this.#whole ? largestNode(leaf, LARGEST_SUM / this.#imageBytes) : 1
    this.largestSum = Math.max(this.largest, most)
    this.tree.begin(this.units, this.step)
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

  encoding(lo: number, hi: number): Encoding {
    return this.tree.encoding(lo, hi)
  }

  request(lo: number, hi: number, withSamples: boolean): WorkRequest {
    return this.#samples.request(this.ids(lo, hi), withSamples)
  }

  accept(
    answer: MessageOf<WorkerMessage, 'gradient' | 'evaluation'>,
    payload: Uint8Array,
    worker: string,
  ): void {
    const { lo, hi } = answer
    acceptGradient(this.tree, answer, payload, this.samples(lo, hi))
    this.#lookAtTail()
    this.entries.push({ lo, hi, worker })
  }

  acceptTail({ lo, hi }: Tail, payload: Uint8Array): void {
    this.tree.accept(lo, hi, payload, undefined, 'tail')
    this.#lookAtTail()
  }

  #lookAtTail(): void {
    if (!this.tree.tailComplete || this.tree.complete) return
    this.#onTail?.(this.tree.gradient)
    this.#onTail = undefined
  }
}

/**
 * Adds a node's sum to a tree. Throws E_GRADIENT, E_NOT_FINITE or E_NOT_ASKED where it is not usable; then nothing is taken.
 *
 * @param samples How many the node has.
 * @param first The number of the tree's first leaf.
 */
export function acceptGradient(
  tree: ReductionTree,
  answer: MessageOf<WorkerMessage, 'gradient' | 'evaluation'>,
  payload: Uint8Array,
  samples: number,
  first = 0,
): void {
  if (answer.kind !== 'gradient') throw unusable('an evaluation instead of a gradient')
  const { lo, hi, loss, correct, count, head } = answer
  if (count !== samples || correct > count) throw unusable(`the counts of [${lo}, ${hi}) are wrong`)
  if (!Number.isFinite(loss)) {
    throw new ConvoyError('E_NOT_FINITE', 'the loss is not finite', 'Check the engine of that machine.')
  }
  tree.accept(lo - first, hi - first, payload, { loss, correct, count }, head ? 'head' : 'whole')
}

/** How nodes are rounded that travel; undefined where they are not. */
export function roundingOf({
  wire: encoding,
  wireLeaves,
  replicas,
}: Pick<BatchOptions, 'wire' | 'wireLeaves' | 'replicas'>) {
  const leaves = replicas === undefined ? wireLeaves : 1
  return encoding === 'float32' ? undefined : { encoding, leaves }
}

/** The largest node that a request is for, where leaves have so many samples. */
export function largestNode(leaf: number, samples = LARGEST_REQUEST): number {
  return 2 ** Math.floor(Math.log2(Math.max(1, Math.floor(samples / leaf))))
}

function unusable(what: string): ConvoyError {
  return new ConvoyError('E_GRADIENT', what, 'Check the memory and the engine of that machine.')
}
