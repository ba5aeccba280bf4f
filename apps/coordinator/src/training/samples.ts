import type { Split } from '@convoy/data'
import type { WorkRequest } from '../cluster/index.ts'

/** Gathers samples of a split for a `work` message, into arrays that it reuses; they are as long as the largest request was. */
export class Samples {
  readonly #split: Split
  readonly #volume: number
  #labels = new Int32Array()
  #pixels: Uint8Array | Float32Array

  constructor(split: Split) {
    this.#split = split
    this.#volume = split.pixels.length / split.count
    this.#pixels = new (kindOf(split.pixels))()
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
    if (this.#labels.length < ids.length) {
      this.#labels = new Int32Array(ids.length)
      this.#pixels = new (kindOf(pixels))(ids.length * volume)
    }
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]
      this.#labels[i] = labels[id]!
      this.#pixels.set(pixels.subarray(id * volume, (id + 1) * volume), i * volume)
    }
    return {
      pixels: kindOf(pixels) === Uint8Array ? 'uint8' : 'float32',
      payloads: [ids, this.#labels.subarray(0, ids.length), this.#pixels.subarray(0, ids.length * volume)],
    }
  }
}

const kindOf = (pixels: Split['pixels']) => (pixels instanceof Uint8Array ? Uint8Array : Float32Array)
