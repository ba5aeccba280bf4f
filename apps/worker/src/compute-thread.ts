import type { LoadOptions } from '@convoy/data'
import type { EngineChoice } from '@convoy/engine'
import { asConvoyError } from '@convoy/errors'
import type { Computer, Order, Outcome } from '@convoy/protocol'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker as Thread } from 'node:worker_threads'

/** What the compute thread is started with. */
export interface ComputeSetup {
  readonly engine: EngineChoice
  /** A data set of the worker's own. */
  readonly data?: string
  readonly dataOptions?: LoadOptions
}

/** An engine on a thread of its own, so that heartbeats flow while native code runs. */
export class ComputeThread implements Computer {
  hear: (outcome: Outcome) => void = () => {}
  readonly #thread: Thread

  /** @param file The compute thread's program. */
  constructor(setup: ComputeSetup, file: URL) {
    this.#thread = new Thread(file, { workerData: setup })
    this.#thread.on('message', (outcome: Outcome) => this.hear(outcome))
    this.#thread.on('error', (thrown) => {
      const { code, message, remedy, stack } = asConvoyError(thrown)
      this.hear({ kind: 'error', code, message, remedy, ...(stack ? { stack } : {}) })
    })
  }

  order(order: Order): void {
    const bytes = order.kind === 'reuse' ? order.frame : 'payload' in order ? order.payload.buffer : undefined
    this.#thread.postMessage(order, bytes ? [bytes as ArrayBuffer] : [])
  }

  async dispose(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.#thread.once('exit', () => resolve()))
    this.order({ kind: 'stop' })
    await Promise.race([ended, sleep(5_000, undefined, { ref: false })])
    await this.#thread.terminate()
  }
}
