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

/**
 * How fast a worker has answered lately, from request to answer, wire included. Every deadline comes from here:
 * median + k·deviation of the measured times, never a fixed time-out.
 */
export class Pace {
  readonly #secondsPerSample: number[] = []

  /** @param seconds Time from when the worker could start to when its answer was here. */
  add(samples: number, seconds: number): void {
    this.#secondsPerSample.push(seconds / Math.max(1, samples))
    if (this.#secondsPerSample.length > REMEMBERED) this.#secondsPerSample.shift()
  }

  get known(): boolean {
    return this.#secondsPerSample.length > 0
  }

  /** Samples a second, or `fallback` where nothing was measured yet. */
  rate(fallback: number): number {
    return this.known ? 1 / median(this.#secondsPerSample) : fallback
  }

  /** Seconds that an answer of so many samples is expected to take; undefined where nothing was measured yet. */
  expected(samples: number): number | undefined {
    return this.known ? samples * median(this.#secondsPerSample) : undefined
  }

  /** Seconds after which an answer of so many samples is late; undefined where nothing was measured yet. */
  deadline(samples: number): number | undefined {
    if (!this.known) return undefined
    const middle = median(this.#secondsPerSample)
    // 1.4826 makes the median absolute deviation comparable to a standard deviation.
    const deviation = 1.4826 * median(this.#secondsPerSample.map((value) => Math.abs(value - middle)))
    const each = middle + DEVIATIONS * Math.max(deviation, LEAST_DEVIATION * middle)
    return SHORTEST + samples * each
  }
}
