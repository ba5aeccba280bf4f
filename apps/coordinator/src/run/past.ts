import { Convergence, guessingCost } from '@convoy/convergence'
import type { ModelSpec } from '@convoy/model'
import path from 'node:path'
import type { Test } from '../training/index.ts'
import { History, readMetrics } from '../watching/index.ts'

/** What a run did in earlier sessions. */
export interface Past {
  /** For the page. */
  readonly history: History
  readonly tests: readonly Test[]
  /** The reading of its cost curve. */
  readonly convergence: Convergence
}

/** Reads what a run did so far from its metrics; a new one has none yet. */
export async function readPast(directory: string, { classes, head }: ModelSpec): Promise<Past> {
  const history = new History()
  const convergence = new Convergence(guessingCost(classes, head))
  const tests: Test[] = []
  await readMetrics(path.join(directory, 'metrics.jsonl'), (event, time) => {
    history.hear(event, time)
    if (event.event === 'test') {
      const { step, epoch, testAccuracy: accuracy } = event
      const after = tests.findLastIndex((test) => test.step < step) + 1
      tests.splice(after, Infinity, { step, epoch, accuracy })
    }
    // JSON has no NaN.
    if (event.event === 'step')
      convergence.add(event.step, ((event.loss as number | null) ?? NaN) * event.samples, event.samples)
  }).catch(() => {})
  return { history, tests, convergence }
}
