import { workBetween } from '@convoy/data'
import type { RunEvent } from '../events.ts'

/** Seconds of training that are averaged over, but so many steps at least and at most. */
const OVER = 10
const [FEWEST, MOST] = [10, 100]

type Of<E extends RunEvent['event']> = Extract<RunEvent, { event: E }>

/**
 * The time that a run still takes, from its events. Of a step's time only the engines' goes with the images' area; update and
 * wire take as long at any size. So both are measured apart, for the work and for the steps that are left.
 */
export class TimeLeft {
  #start: Of<'start'> | undefined
  /** Updates done. */
  #step = 0
  /** Where a run that ends at an accuracy is expected to end. */
  #expectedEpoch = Infinity
  /** Seconds that engines take for a step at full size, and that the rest of a step takes, lately. */
  #engines = NaN
  #rest = NaN
  /** Steps of this session. */
  #steps = 0

  hear(event: RunEvent): void {
    switch (event.event) {
      case 'start':
        this.#start = event
        this.#step = event.resumedAt
        this.#steps = 0
        break
      case 'step':
        this.#hearStep(event)
        break
      case 'rolledBack':
        this.#step = event.to
        break
      case 'test':
        this.#expectedEpoch = event.expectedEpoch ?? Infinity
        break
    }
  }

  /** Seconds; NaN until a step was measured. */
  get seconds(): number {
    if (!this.#start) return NaN
    const { epochs, stepsPerEpoch, steps = Infinity, sizes } = this.#start
    const end = Math.min(Math.min(epochs, this.#expectedEpoch) * stepsPerEpoch, steps)
    const left = Math.max(0, end - this.#step)
    return left * this.#rest + workBetween(sizes, this.#step, end) * this.#engines
  }

  #hearStep({ step, samples, seconds, ...event }: Of<'step'>): void {
    this.#step = step
    if (!this.#start) return
    const { trainImages, stepsPerEpoch, sizes } = this.#start
    // Engines measure by clocks of their own, and older runs do not tell of them.
    const computing = Math.min(seconds, event.computeSeconds ?? seconds)
    const batches = (samples * stepsPerEpoch) / trainImages
    // The first step of a session warms up: the second takes its place.
    const weight = 1 / Math.min(Math.max(this.#steps, 1), Math.max(FEWEST, Math.min(MOST, OVER / seconds)))
    const blend = (old: number, value: number) => (Number.isNaN(old) ? value : old + weight * (value - old))
    this.#engines = blend(this.#engines, computing / batches / workBetween(sizes, step - 1, step))
    this.#rest = blend(this.#rest, seconds - computing)
    this.#steps++
  }
}
