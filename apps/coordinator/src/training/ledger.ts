import { ConvoyError } from '@convoy/errors'

/** A node of the batch whose gradient was applied, and who computed it. */
export interface Entry {
  readonly lo: number
  readonly hi: number
  readonly worker: string
}

/**
 * Keeps account of which samples of an epoch were used: each exactly once, whatever happened on the way. It counts what
 * was added to a gradient that was applied, answer by answer, and not what was planned.
 */
export class Ledger {
  readonly #used: Uint8Array
  #count = 0

  /** @param samples Training samples of an epoch. */
  constructor(samples: number) {
    this.#used = new Uint8Array(samples)
  }

  /** Samples used in the running epoch. */
  get count(): number {
    return this.#count
  }

  /** Starts an epoch of which these samples are used already. */
  begin(used: Uint32Array): void {
    this.#used.fill(0)
    this.#count = 0
    this.apply(used)
  }

  /** An update applied the gradients of these samples. Throws E_LEDGER where one was applied before in this epoch. */
  apply(samples: Uint32Array): void {
    for (const sample of samples) {
      if (this.#used[sample] !== 0) throw wrong(`sample ${sample} was applied twice in one epoch`)
      this.#used[sample] = 1
    }
    this.#count += samples.length
  }

  /** The epoch is over. Throws E_LEDGER where a sample was left out. */
  close(): void {
    if (this.#count === this.#used.length) return
    throw wrong(
      `${this.#count} of ${this.#used.length} samples were used in an epoch; sample ${this.#used.indexOf(0)} was not`,
    )
  }
}

function wrong(what: string): ConvoyError {
  return new ConvoyError(
    'E_LEDGER',
    what,
    'This is a defect in Convoy; please report it with the run folder.',
  )
}
