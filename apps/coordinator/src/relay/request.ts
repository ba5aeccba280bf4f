import type { Arena } from '@convoy/arena'
import { ConvoyError } from '@convoy/errors'
import { encodeFrame, type CoordinatorMessage, type MessageOf, type SumFrames } from '@convoy/protocol'
import { ReductionTree, type Encoding } from '@convoy/reduction'
import type { Answer, WorkRequest } from '../cluster/index.ts'
import { acceptGradient, type Samples } from '../training/index.ts'

type Welcome = MessageOf<CoordinatorMessage, 'welcome'>
export type AskedWork = MessageOf<CoordinatorMessage, 'work'>

/** What requests of a run have in common. */
export interface Site {
  readonly welcome: Welcome
  /** Where sums are added. */
  readonly arena: Arena
  readonly frames: SumFrames
  /** Of the relay's own data set, where it has the run's. */
  readonly samples: Samples | undefined
  /** Zeros, of a gradient's size. */
  readonly zeros: Float32Array
}

/** Samples that a leaf of a request has. */
export function leafOf(
  { rounds, smaller, microBatch }: Welcome,
  { task, size, round, count }: AskedWork,
): number {
  if (task === 'evaluate') return count
  if (round && rounds) return rounds.steps * rounds.batchSize
  return smaller.find((one) => one.size === size)?.microBatch ?? microBatch
}

/** A node that the coordinator above asks for: its samples, and the tree in which the workers' sums below end. */
export class AskedNode {
  readonly work: AskedWork
  /** Whether it was answered, or nobody waits for it any more. */
  over = false
  readonly #site: Site
  readonly #leaf: number
  readonly #ids: Uint32Array
  readonly #sent: { readonly labels: Int32Array; readonly pixels: Uint8Array | Float32Array } | undefined
  readonly #tree: ReductionTree
  #logits: Uint8Array | undefined
  /** In ms of `performance.now()`. */
  readonly #since = performance.now()
  /** Of all workers that had a part in it. */
  #engineSeconds = 0

  /** Throws where the request is for images that are not here. */
  constructor(site: Site, work: AskedWork, payload: Uint8Array) {
    const { count, pixels, lo, hi } = work
    const { byteOffset } = payload
    const buffer = payload.buffer as ArrayBuffer
    this.#site = site
    this.work = work
    this.#leaf = leafOf(site.welcome, work)
    this.#ids = new Uint32Array(buffer, byteOffset, count)
    if (pixels === 'none') {
      if (!site.samples) throw new Error('there is no data set here')
    } else {
      const [height, width, channels] = site.welcome.model.input
      const Pixels = pixels === 'uint8' ? Uint8Array : Float32Array
      this.#sent = {
        labels: new Int32Array(buffer, byteOffset + 4 * count, count),
        pixels: new Pixels(buffer, byteOffset + 8 * count, count * height * width * channels),
      }
    }
    const { seed, relay } = site.welcome
    // A smaller node is rounded as a whole where it goes up, if it is.
    const rounding = relay?.rounding && hi - lo > relay.rounding.leaves ? relay.rounding : undefined
    this.#tree = new ReductionTree(site.arena, rounding && { ...rounding, seed })
    this.restart()
  }

  /** Whether leaves [lo, hi) are of this node. */
  holds(lo: number, hi: number): boolean {
    return this.work.lo <= lo && hi <= this.work.hi
  }

  /** How many samples leaves [lo, hi) have. */
  samples(lo: number, hi: number): number {
    return this.#place(hi) - this.#place(lo)
  }

  /** Where a leaf's samples begin. */
  #place(leaf: number): number {
    return Math.min(this.work.count, (leaf - this.work.lo) * this.#leaf)
  }

  /** How the sum of leaves [lo, hi) comes from below. */
  encoding(lo: number, hi: number): Encoding {
    return this.work.task === 'gradient'
      ? this.#tree.encoding(lo - this.work.lo, hi - this.work.lo)
      : 'float32'
  }

  /** What a worker needs for leaves [lo, hi). */
  request(lo: number, hi: number, withSamples: boolean): WorkRequest {
    const [from, to] = [this.#place(lo), this.#place(hi)]
    const ids = this.#ids.subarray(from, to)
    const { pixels } = this.work
    // A worker's own data set serves for training only.
    if (!withSamples && this.work.task === 'gradient') return { pixels: 'none', payloads: [ids] }
    if (!this.#sent || pixels === 'none') return this.#site.samples!.request(ids, true)
    const each = this.#sent.pixels.length / this.work.count
    const images = this.#sent.pixels.subarray(from * each, to * each)
    return { pixels, payloads: [ids, this.#sent.labels.subarray(from, to), images] }
  }

  /** Takes a worker's answer. Throws a `ConvoyError` where it is not usable; then nothing is taken. */
  accept(answer: Answer, payload: Uint8Array): void {
    const { lo, hi } = answer
    if (this.work.task === 'gradient') {
      acceptGradient(this.#tree, answer, payload, this.samples(lo, hi), this.work.lo)
      this.#engineSeconds += answer.seconds
      return
    }
    const bytes = 4 * this.work.count * this.#site.welcome.model.classes
    if (answer.kind !== 'evaluation' || payload.byteLength !== bytes) {
      throw new ConvoyError('E_MESSAGE', 'an answer to an evaluation has the wrong size', 'Nothing.')
    }
    // Whether logits are finite is judged above.
    this.#logits = payload
  }

  get complete(): boolean {
    return this.work.task === 'gradient' ? this.#tree.complete : this.#logits !== undefined
  }

  /**
   * What goes up of a node that is complete. Of a round it says how long all workers together would take, with none of them idle: a site
   * of a hundred is as fast when it has two replicas, which it does side by side.
   *
   * @param since When the answer before this one went up, in ms of `performance.now()`.
   * @param workers Of the site.
   */
  answer(since: number, workers: number): { frame: ArrayBuffer; length: number; reusable: boolean } {
    const { id, step, lo, hi, task, round } = this.work
    const elapsed = (performance.now() - Math.max(since, this.#since)) / 1000
    const seconds = round ? this.#engineSeconds / Math.max(1, workers) : elapsed
    if (task === 'gradient') {
      const { gradient, loss, correct } = this.#tree.result()
      return this.#seal(gradient.values, loss, correct, seconds)
    }
    const bytes = encodeFrame({ kind: 'evaluation', id, step, lo, hi, seconds }, this.#logits!)
    return { frame: bytes.buffer as ArrayBuffer, length: bytes.byteLength, reusable: false }
  }

  /** What goes up where nobody below has a finite answer: one that is not finite, for the coordinator to judge. */
  notFinite(): { frame: ArrayBuffer; length: number; reusable: boolean } {
    return this.#seal(this.#site.zeros, NaN, 0, 0)
  }

  #seal(values: Float32Array, loss: number, correct: number, seconds: number) {
    return { ...this.#site.frames.seal(this.work, { values, loss, correct, seconds }), reusable: true }
  }

  /** Starts over: what was taken may be wrong. */
  restart(): void {
    const { lo, hi, step } = this.work
    this.#tree.begin(hi - lo, step, lo)
    this.#engineSeconds = 0
    this.#logits = undefined
  }

  /** Lets go of the sums. */
  end(): void {
    this.over = true
    this.#tree.begin(0)
  }
}
