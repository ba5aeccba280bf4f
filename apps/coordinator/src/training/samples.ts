import type { Split } from '@convoy/data'
import type { WorkRequest } from '../cluster/index.ts'

/** Gathers samples of a split for a `work` message, into arrays that it reuses. */
export class Samples {
  readonly #split: Split
  readonly #volume: number
  readonly #labels: Int32Array
  readonly #pixels: Uint8Array | Float32Array

  /** @param most The most samples that one request may have. */
  constructor(split: Split, most: number) {
    this.#split = split
    this.#volume = split.pixels.length / split.count
    this.#labels = new Int32Array(most)
    const size = most * this.#volume
    this.#pixels = split.pixels instanceof Uint8Array ? new Uint8Array(size) : new Float32Array(size)
  }

  /**
   * The payloads of a request for these samples. They are valid until the next call: encode them at once.
   *
   * @param ids Sample numbers within the split.
   * @param withSamples Whether labels and pixels go along.
   */
  request(ids: Uint32Array, withSamples: boolean): WorkRequest {
    if (!withSamples) return { pixels: 'none', payloads: [ids] }
    const { labels, pixels } = this.#split
    const volume = this.#volume
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]
      this.#labels[i] = labels[id]!
      this.#pixels.set(pixels.subarray(id * volume, (id + 1) * volume), i * volume)
    }
    return {
      pixels: pixels instanceof Uint8Array ? 'uint8' : 'float32',
      payloads: [ids, this.#labels.subarray(0, ids.length), this.#pixels.subarray(0, ids.length * volume)],
    }
  }
}
