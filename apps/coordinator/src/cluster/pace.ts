/** How many times are remembered: enough for a median, few enough to follow a change of speed within seconds. */
const REMEMBERED = 15
/** Deviations above the median at which a wait is over. */
const DEVIATIONS = 5
/** A wait is never cut shorter than this, in seconds: timers and sockets are not more punctual. */
const SHORTEST = 0.25
/** The deviation is taken to be at least this share of the median: a few equal times do not prove punctuality. */
const LEAST_DEVIATION = 0.25

/** The middle of a few numbers; of an even count, the upper of the middle two. */
export function median(values: readonly number[]): number {
  const sorted = values.slice().sort((a, b) => a - b)
  return sorted[sorted.length >> 1] ?? NaN
}

/** Keeps the newest few. */
function remember(values: number[], value: number): void {
  values.push(value)
  if (values.length > REMEMBERED) values.shift()
}

/**
 * How fast a worker has answered lately, from request to answer, wire included. Every deadline comes from here:
 * median + k·deviation of the measured times, never a fixed time-out.
 */
export class Pace {
  readonly #secondsPerSample: number[] = []
  /** Of these; kept, since a thousand workers are asked for it at every answer. */
  #middle = NaN
  readonly #enginePerSample: number[] = []
  readonly #frame: number[] = []

  /** @param seconds Time from when the worker could start to when its answer was here. */
  add(samples: number, seconds: number): void {
    remember(this.#secondsPerSample, seconds / Math.max(1, samples))
    this.#middle = median(this.#secondsPerSample)
  }

  /**
   * Tells the engine's time from the link's by the first answer of a step: what its engine did not take went to parameters down and a sum up.
   *
   * @param seconds As for `add`.
   * @param engine Of these, how many the engine took, as the worker says.
   */
  addFirst(samples: number, seconds: number, engine: number): void {
    const took = Math.min(seconds, engine)
    remember(this.#enginePerSample, took / Math.max(1, samples))
    remember(this.#frame, (seconds - took) / 2)
  }

  /** Seconds that the engine takes for a sample, and that parameters or a gradient are on their way; undefined where it is not known. */
  get speed(): { readonly sample: number; readonly frame: number } | undefined {
    const sample = median(this.#enginePerSample)
    return sample > 0 ? { sample, frame: median(this.#frame) } : undefined
  }

  get known(): boolean {
    return this.#secondsPerSample.length > 0
  }

  /** Samples a second, or `fallback` where nothing was measured yet. */
  rate(fallback: number): number {
    return this.known ? 1 / this.#middle : fallback
  }

  /** Seconds that an answer of so many samples is expected to take; undefined where nothing was measured yet. */
  expected(samples: number): number | undefined {
    return this.known ? samples * this.#middle : undefined
  }

  /** Seconds after which an answer of so many samples is late; undefined where nothing was measured yet. */
  deadline(samples: number): number | undefined {
    if (!this.known) return undefined
    const middle = this.#middle
    // 1.4826 makes the median absolute deviation comparable to a standard deviation.
    const deviation = 1.4826 * median(this.#secondsPerSample.map((value) => Math.abs(value - middle)))
    const each = middle + DEVIATIONS * Math.max(deviation, LEAST_DEVIATION * middle)
    return SHORTEST + samples * each
  }
}
