import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import type { Measure, Measured } from './measure-engine.ts'

/** A process that measures engines; it stays warm between rounds. */
export class EngineProcess {
  readonly #child: ChildProcess

  constructor() {
    this.#child = fork(fileURLToPath(new URL('./measure-engine.mjs', import.meta.url)), { execArgv: [] })
  }

  async measure(request: Measure): Promise<Measured> {
    this.#child.send(request)
    const settled = new AbortController()
    const { signal } = settled
    const over = once(this.#child, 'exit', { signal }).then(([code, by]) => {
      throw new Error(`the process of ${request.engine.engine} ended with ${code ?? by}`)
    })
    try {
      const [answer] = (await Promise.race([once(this.#child, 'message', { signal }), over])) as [
        Measured | { error: string },
      ]
      if ('error' in answer) throw new Error(answer.error)
      return answer
    } finally {
      settled.abort()
    }
  }

  close(): void {
    this.#child.kill()
  }
}
