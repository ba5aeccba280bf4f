/** Windows that are kept of a whole run, an even number; beyond it two become one. */
const KEPT = 256
/** Windows that are kept as they came. */
const RECENT = 100

/** A stretch of steps and the mean cost of its samples. */
export interface Block {
  readonly mean: number
  readonly samples: number
  /** Its last step. */
  readonly step: number
  /** The highest mean of the windows in it. */
  readonly high: number
}

/** The windows of a run, one behind the other: the newest as they came, and all of them in at most 256 pieces. */
export class Blocks {
  /** The last windows. */
  recent: Block[] = []
  /** The whole run in blocks of `stride` windows. */
  all: Block[] = []
  stride = 1
  /** Windows since the last whole block. */
  #rest: Block[] = []

  add(window: Block): void {
    this.recent.push(window)
    if (this.recent.length > RECENT) this.recent.shift()
    this.#rest.push(window)
    if (this.#rest.length < this.stride) return
    this.all.push(merged(this.#rest))
    this.#rest = []
    if (this.all.length < KEPT) return
    this.all = this.all.flatMap((block, i) => (i % 2 === 0 ? [merged([block, this.all[i + 1]])] : []))
    this.stride *= 2
  }

  /** Takes back what holds steps after `step`. */
  takeBack(step: number): void {
    const before = (block: Block) => block.step <= step
    this.recent = this.recent.filter(before)
    this.all = this.all.filter(before)
    this.#rest = this.#rest.filter(before)
  }
}

function merged(blocks: readonly Block[]): Block {
  const samples = blocks.reduce((sum, block) => sum + block.samples, 0)
  const sum = blocks.reduce((total, block) => total + block.mean * block.samples, 0)
  const high = Math.max(...blocks.map((block) => block.high))
  return { mean: sum / samples, samples, step: blocks.at(-1)!.step, high }
}
