import type { Dataset } from '@convoy/data'
import type { TailListener } from '@convoy/engine'
import type { CoordinatorMessage, MessageOf } from '@convoy/protocol'
import type { NodeSummer } from '@convoy/reduction'
import { setImmediate as hearMessages } from 'node:timers/promises'
import type { Bench, Leaf, Plan } from './bench.ts'

type Work = MessageOf<CoordinatorMessage, 'work'>

/** A request as it came. */
export interface Request {
  readonly work: Work
  readonly payload: Uint8Array
}

/** Leaves [lo, hi) of a batch. */
export interface Leaves {
  readonly lo: number
  readonly hi: number
  /** Where their samples are in the request. */
  readonly from: number
  readonly to: number
  /** The number of their batch, which dropout is drawn by. */
  readonly step: number
}

/** The request at hand: its samples, and what computes them. */
export class Task {
  readonly bench: Bench
  readonly work: Work
  readonly plan: Plan
  /** Set while it is computed, where nobody waits for it any more. */
  cancelled = false
  readonly #ids: Uint32Array
  /** Where they came with the request; else the samples are in the data set of this worker. */
  readonly #sent: { readonly labels: Int32Array; readonly pixels: Uint8Array | Float32Array } | undefined
  readonly #dataset: Dataset | undefined

  /** Throws where the request is for images that are not here. */
  constructor(bench: Bench, { work, payload }: Request, dataset: Dataset | undefined) {
    this.bench = bench
    this.work = work
    this.plan = bench.plan(work.size)
    this.#dataset = dataset
    const { count, cut } = work
    if (cut !== undefined && cut !== bench.cut) throw new Error(`a gradient is not cut at ${cut} here`)
    const { byteOffset } = payload
    const buffer = payload.buffer as ArrayBuffer
    this.#ids = new Uint32Array(buffer, byteOffset, count)
    if (work.pixels === 'none') {
      if (!dataset) throw new Error('there is no data set here')
      return
    }
    const Pixels = work.pixels === 'uint8' ? Uint8Array : Float32Array
    this.#sent = {
      labels: new Int32Array(buffer, byteOffset + 4 * count, count),
      pixels: new Pixels(buffer, byteOffset + 8 * count, count * bench.pixelsPerImage),
    }
  }

  /** Makes a leaf's input of samples [from, from + count), varied where it is for training. */
  fill(from: number, count: number, { batch }: Leaf): void {
    const { pixelsPerImage, welcome } = this.bench
    const { task, epoch } = this.work
    const { labels, pixels } = this.#sent ?? this.#dataset!.train
    batch.clear()
    for (let i = from; i < from + count; i++) {
      const sample = this.#ids[i]
      const at = this.#sent ? i : sample
      batch.add(
        pixels.subarray(at * pixelsPerImage, (at + 1) * pixelsPerImage),
        labels[at],
        task === 'gradient' ? { seed: welcome.seed, epoch, sample } : undefined,
      )
    }
  }

  /**
   * Sums the gradients of leaves in the tree's order, on the parameters that the engine has.
   *
   * @param tail Told while the last leaf is computed.
   * @returns False where it was cancelled.
   */
  async sumLeaves(
    { lo, hi, from, to, step }: Leaves,
    summer: NodeSummer,
    tail?: TailListener,
  ): Promise<boolean> {
    const { epoch } = this.work
    const { seed } = this.bench.welcome
    const { compiled, leaves, microBatch } = this.plan
    summer.begin(lo, hi)
    const prepare = (leaf: number): Leaf => {
      const first = from + (leaf - lo) * microBatch
      const count = Math.min(microBatch, to - first)
      const prepared = leaves[leaf % leaves.length]
      this.fill(first, count, prepared)
      prepared.masks.fill({ seed, epoch, step, leaf }, count)
      compiled.begin?.(prepared.batch, prepared.masks)
      return prepared
    }
    let current = prepare(lo)
    for (let leaf = lo; leaf < hi; leaf++) {
      const more = leaf + 1 < hi
      const { batch, masks } = current
      // An engine that can begin is given the next leaf before this one is waited for.
      if (more && compiled.begin) current = prepare(leaf + 1)
      const { loss, correct } = await compiled.gradient(
        batch,
        masks,
        summer.buffer(),
        more ? undefined : tail,
      )
      summer.push(loss, correct, batch.count)
      if (more) await hearMessages()
      if (this.cancelled) return false
      if (more && !compiled.begin) current = prepare(leaf + 1)
    }
    return true
  }
}
