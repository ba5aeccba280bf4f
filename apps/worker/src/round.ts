import type { Sum } from '@convoy/reduction'
import { setImmediate as hearMessages } from 'node:timers/promises'
import type { Leaves, Task } from './task.ts'

/**
 * Has the replicas of a node take their steps, one after another, and sums what these moved them by.
 *
 * @returns False where it was cancelled.
 */
export async function computeRound(task: Task): Promise<boolean> {
  const { work, bench } = task
  const { summer } = bench
  const { steps, count: each, batchSize, start } = bench.local!
  start.set(bench.parameters(work.step))
  summer.begin(work.lo, work.hi)
  for (let replica = work.lo; replica < work.hi; replica++) {
    const from = (replica - work.lo) * each * batchSize
    const end = Math.min(work.count, from + each * batchSize)
    let loss = 0
    let correct = 0
    steps.begin(start)
    for (let first = from, i = 0; first < end; first += batchSize, i++) {
      const batch = {
        from: first,
        to: Math.min(end, first + batchSize),
        step: work.round!.step + replica * each + i,
      }
      if (first > 0) await hearMessages()
      if (task.cancelled) return false
      const sum = await sumStep(task, batch)
      if (!sum) return false
      steps.update(sum.gradient, sum.count, work.round!.rates[i])
      loss += sum.loss
      correct += sum.correct
    }
    steps.difference(end - from, summer.buffer())
    summer.push(loss, correct, end - from)
  }
  return true
}

/** The gradient's sum over a whole batch on the replica's parameters; undefined where it was cancelled. */
async function sumStep(task: Task, batch: Omit<Leaves, 'lo' | 'hi'>): Promise<Sum | undefined> {
  const { plan } = task
  const { steps, summer } = task.bench.local!
  const hi = Math.ceil((batch.to - batch.from) / plan.microBatch)
  plan.compiled.load(steps.parameters)
  plan.step = -1
  return (await task.sumLeaves({ ...batch, lo: 0, hi }, summer)) ? summer.result() : undefined
}
