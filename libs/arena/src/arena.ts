import { instantiate, type Kernels, type Memory } from './kernels.ts'

/** Slots are whole blocks of so many bytes, so that most loops have no rest to care for; the padding stays zero. */
const BLOCK = 64
const PAGE = 65_536

/** The place of one array of float32 numbers. */
export interface Slot {
  /** The numbers; take them anew after each `Arena.take`, since the memory may have moved. */
  readonly values: Float32Array
}

class ArenaSlot implements Slot {
  /** Where it starts and ends, in bytes. */
  readonly at: number
  readonly end: number
  readonly #view: () => Float32Array
  #values: Float32Array

  constructor(at: number, end: number, view: () => Float32Array) {
    this.at = at
    this.end = end
    this.#view = view
    this.#values = view()
  }

  get values(): Float32Array {
    // Growing the memory leaves older views without it.
    if (this.#values.length === 0) this.#values = this.#view()
    return this.#values
  }
}

/** What an update with momentum needs besides its arrays. */
export interface Momentum {
  /** μ */
  readonly momentum: number
  readonly nesterov: boolean
  /** η */
  readonly rate: number
  /** The gradient is multiplied by this, */
  readonly scale: number
  /** and the parameter times this is added to it. */
  readonly decay: number
}

/**
 * Arrays of one size side by side in one WebAssembly memory, where they are worked on several numbers at a time. In plain
 * JavaScript the same arithmetic takes several times as long, and it stands between one step and the next. Every
 * operation is rounded as IEEE 754 says, so the bits are those of the formula, whatever the machine.
 */
export class Arena {
  readonly size: number
  /** Bytes of a slot. */
  readonly #stride: number
  readonly #memory: Memory
  readonly #kernels: Kernels
  readonly #free: ArenaSlot[] = []
  #used = 0

  /** @param size How many numbers a slot has. */
  constructor(size: number) {
    this.size = size
    this.#stride = Math.ceil((4 * size) / BLOCK) * BLOCK
    const { memory, kernels } = instantiate()
    this.#memory = memory
    this.#kernels = kernels
  }

  /** A free slot; what it holds is whatever was there. Throws a RangeError beyond 4 GiB in all. */
  take(): Slot {
    const free = this.#free.pop()
    if (free) return free
    const at = this.#used
    this.#used += this.#stride
    const missing = this.#used - this.#memory.buffer.byteLength
    if (missing > 0) this.#memory.grow(Math.ceil(missing / PAGE))
    return new ArenaSlot(at, this.#used, () => new Float32Array(this.#memory.buffer, at, this.size))
  }

  /** A slot with a copy of these numbers. */
  hold(values: Float32Array): Slot {
    const slot = this.take()
    slot.values.set(values)
    return slot
  }

  give(slot: Slot): void {
    this.#free.push(slot as ArenaSlot)
  }

  /** left ← left + right, number by number, in float32. */
  add(left: Slot, right: Slot): void {
    const { at, end } = left as ArenaSlot
    this.#kernels.add(at, (right as ArenaSlot).at, end)
  }

  /** Whether no number is NaN or infinite. */
  isFinite(slot: Slot): boolean {
    const { at, end } = slot as ArenaSlot
    return this.#kernels.nonFinite(at, end) === 0
  }

  /** The Euclidean norm, summed in float64: four sums side by side, added up in one fixed order. */
  norm(slot: Slot): number {
    const { at, end } = slot as ArenaSlot
    return Math.sqrt(this.#kernels.squares(at, end))
  }

  /**
   * One update with momentum of the elements [first, end), in float64 but for what is stored:
   *
   *     push = η·(g·scale + decay·w);   v ← μ·v - push;   w ← w + μ·v - push   (Nesterov)   or   w + v   (classical)
   */
  update(w: Slot, v: Slot, g: Slot, first: number, end: number, how: Momentum): void {
    const { momentum, nesterov, rate, scale, decay } = how
    // The kernel does eight elements at a time and leaves a rest.
    const whole = first + ((end - first) & ~7)
    if (whole > first) {
      const place = (slot: Slot) => (slot as ArenaSlot).at + 4 * first
      const kernel = nesterov ? this.#kernels.nesterov : this.#kernels.classical
      kernel(place(w), place(v), place(g), (w as ArenaSlot).at + 4 * whole, momentum, rate, scale, decay)
    }
    for (let i = whole; i < end; i++) {
      const push = rate * (g.values[i] * scale + decay * w.values[i])
      // The v that is stored is what counts: it is the one that a checkpoint keeps.
      v.values[i] = momentum * v.values[i] - push
      w.values[i] = nesterov ? w.values[i] + momentum * v.values[i] - push : w.values[i] + v.values[i]
    }
  }
}
