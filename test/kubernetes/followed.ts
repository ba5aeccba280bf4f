import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import type { Line } from '../convoy.ts'

interface Entry {
  step: number
  epoch: number
  samples: number[]
}

/** What a coordinator wrote of a run. */
export class Followed {
  readonly lines: Line[]
  readonly #folder: string

  constructor(folder: string) {
    this.#folder = folder
    this.lines = this.#read('metrics.jsonl')
  }

  #read(name: string): Line[] {
    const file = path.join(this.#folder, name)
    const text = existsSync(file) ? readFileSync(file, 'utf8') : ''
    // The last line may be half written.
    const whole = text.slice(0, text.lastIndexOf('\n') + 1)
    return whole
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Line)
  }

  all(event: string): Line[] {
    return this.lines.filter((line) => line.event === event)
  }

  get step(): number {
    return Number(this.all('step').at(-1)?.['step'] ?? 0)
  }

  /** Workers that are connected. A step's own number is of those that computed it, who may have left since. */
  get workers(): number {
    const last = this.lines.findLast(({ event }) => event === 'workerJoined' || event === 'workerLeft')
    return Number(last?.['workers'] ?? 0)
  }

  /** Of the steps' last entries: samples used, and how many of them more than once in an epoch. */
  ledger(): { used: number; twice: number } {
    const entries = new Map<number, { epoch: number; samples: number[] }>()
    for (const { step, epoch, samples } of this.#read('ledger.jsonl') as unknown as Entry[])
      entries.set(step, { epoch, samples })
    const seen = new Set<string>()
    let used = 0
    for (const { epoch, samples } of entries.values()) {
      used += samples.length
      for (const sample of samples) seen.add(`${epoch}:${sample}`)
    }
    return { used, twice: used - seen.size }
  }
}
