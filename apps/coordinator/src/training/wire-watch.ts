import { median } from '../cluster/index.ts'

/** Steps that are looked at together. */
const LOOKED_AT = 20
/** Share of a step from which on the wire is said to hold the workers up. */
const TOO_MUCH = 0.5
/** Seconds that must be left of waiting, or nobody gains by another mode. */
const WORTH_SAYING = 60
/** In rounds, a replica should compute this many times as long as its parameters and its sum travel. */
const TIMES_THE_WIRE = 4

/** Where a step's time went, in seconds. */
interface Times {
  readonly seconds: number
  /** The engine's time of the worker that computed longest. */
  readonly computeSeconds: number
  readonly updateSeconds: number
  /** Workers that computed. */
  readonly workers: number
}

/** That workers wait for the wire, and the rounds in which they would not. */
export interface WireBound {
  /** Of a step, what is neither computing nor the update. */
  readonly share: number
  readonly replicas: number
  readonly localSteps: number
}

/**
 * Looks whether workers spend their time waiting for the wire, as a GPU does whose step is shorter than it. It is said and not acted upon: rounds
 * are another config, with other bits, and what a machine happened to measure must not decide those.
 */
export class WireWatch {
  readonly #shares: number[] = []
  readonly #wires: number[] = []
  readonly #computing: number[] = []
  #said = false

  /**
   * @param left Steps that the run still has.
   * @returns Something once, after 20 steps of one number of workers whose larger part was the wire, if at least a minute of that is left.
   */
  observe({ seconds, computeSeconds, updateSeconds, workers }: Times, left: number): WireBound | undefined {
    if (this.#said) return undefined
    const wire = Math.max(0, seconds - computeSeconds - updateSeconds)
    this.#shares.push(wire / seconds)
    this.#wires.push(wire)
    // A replica has whole batches, of which a worker now has its share.
    this.#computing.push(computeSeconds * workers)
    if (this.#shares.length < LOOKED_AT) return undefined
    const [share, wires, batch] = [this.#shares, this.#wires, this.#computing].map(median)
    for (const values of [this.#shares, this.#wires, this.#computing]) values.length = 0
    if (share < TOO_MUCH || wires * left < WORTH_SAYING || !(batch > 0)) return undefined
    this.#said = true
    const localSteps = 2 ** Math.ceil(Math.log2(Math.max(2, (TIMES_THE_WIRE * wires) / batch)))
    return { share, replicas: workers, localSteps }
  }
}
