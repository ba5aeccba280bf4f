interface Batch {
  readonly step: number
  readonly sum: number
  readonly samples: number
}

/**
 * The mean over the last `size` samples, in whole batches: the fewest of the last batches that hold so many. At a run's
 * beginning it is the mean of what there is.
 */
export class Window {
  readonly #size: number
  #batches: Batch[] = []
  /** Where in `#batches` the window begins. */
  #begin = 0
  #sum = 0
  #samples = 0

  /** @param size In samples. */
  constructor(size: number) {
    this.#size = size
  }

  /**
   * Adds a batch. A step that was there already takes back all from it on.
   *
   * @param mean The batch's mean.
   * @returns The window's mean; NaN while one is inside.
   */
  add(step: number, mean: number, samples: number): number {
    if (this.#batches.length > 0 && this.#batches.at(-1)!.step >= step) {
      this.#batches = this.#batches.slice(this.#begin).filter((batch) => batch.step < step)
      this.#count()
    }
    this.#batches.push({ step, sum: mean * samples, samples })
    this.#sum += mean * samples
    this.#samples += samples
    while (this.#samples - this.#batches[this.#begin].samples >= this.#size) {
      const left = this.#batches[this.#begin++]
      this.#sum -= left.sum
      this.#samples -= left.samples
    }
    // Counted anew now and then: rounding would pile up, and a NaN would never leave.
    if (this.#begin > 64 + this.#batches.length / 2 || !Number.isFinite(this.#sum)) {
      this.#batches = this.#batches.slice(this.#begin)
      this.#count()
    }
    return this.#sum / this.#samples
  }

  #count(): void {
    this.#begin = 0
    this.#sum = this.#batches.reduce((sum, batch) => sum + batch.sum, 0)
    this.#samples = this.#batches.reduce((sum, batch) => sum + batch.samples, 0)
  }
}
