import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Cluster } from './cluster.ts'
import type { RunEvent } from './events.ts'
import { frame, gradientJob } from './fixtures.ts'
import { Member } from './member.ts'

/** A worker whose connection only keeps what it is sent. */
function member(name: string): Member {
  const numerics = {
    ...{ engine: 'none', version: '1', precision: 'float32', instructionSet: 'none', threads: 1 },
  }
  const hello = { instance: name, engine: 'none', numerics } as ConstructorParameters<typeof Member>[0]
  const socket = { readyState: 1, OPEN: 1, send() {} } as unknown as Member['socket']
  return new Member(hello, name, socket, true)
}

/** A gradient of all three leaves, or as many as a worker is given. */
const job = (step: number) => gradientJob(step, () => {})

/** Has a worker answer all that it was asked. */
function answer(worker: Member): void {
  for (const { id, step, lo, hi, samples: count } of [...worker.assignments.values()]) {
    const header = { kind: 'gradient', id, step, lo, hi, count, loss: 0, correct: 0, seconds: 1 } as const
    cluster.answer(worker, header, new Uint8Array())
  }
}

let events: RunEvent[]
let cluster: Cluster
beforeEach(() => {
  vi.useFakeTimers({ toFake: ['performance', 'setInterval', 'clearInterval'] })
  events = []
  cluster = new Cluster((event) => events.push(event))
})
afterEach(() => {
  cluster.dispose()
  vi.useRealTimers()
})

const of = (...kinds: string[]) => events.filter(({ event }) => kinds.includes(event))

describe('a worker that compiles without end', () => {
  it('is named once after a minute, and the run says what it waits for', () => {
    cluster.join(member('slow'))
    void cluster.compute(job(4), frame)
    vi.advanceTimersByTime(59_000)
    expect(of('workerStalled', 'waiting')).toEqual([])
    vi.advanceTimersByTime(60_000)
    expect(of('workerStalled', 'waiting')).toEqual([
      {
        event: 'workerStalled',
        worker: 'slow',
        waited: expect.closeTo(60, 0) as number,
        step: 4,
        compiling: true,
      },
      { event: 'waiting', reason: 'slow is still compiling the model; the run goes on when one answers' },
    ])
    expect(cluster.tallies.get('slow')!.stalls).toBe(1)
  })

  it('is given work when it has compiled after all', () => {
    const slow = member('slow')
    cluster.join(slow)
    void cluster.compute(job(4), frame)
    vi.advanceTimersByTime(61_000)
    cluster.ready(slow)
    expect(of('workerRecovered')).toHaveLength(1)
    expect(slow.assignments.size).toBe(1)
  })

  it('does not keep the others waiting', async () => {
    const quick = member('quick')
    cluster.join(member('slow'))
    cluster.join(quick)
    cluster.ready(quick)
    for (let step = 1; step <= 2; step++) {
      const done = cluster.compute(job(step), frame)
      vi.advanceTimersByTime(40_000)
      answer(quick)
      expect(await done).toBe(true)
    }
    expect(of('workerStalled')).toMatchObject([{ worker: 'slow', compiling: true }])
    expect(of('waiting')).toEqual([])
  })
})

describe('waiting for workers', () => {
  it('is measured, with their compiling, without their computing, and begins anew with each job', async () => {
    const first = cluster.compute(job(1), frame)
    expect(of('waiting')).toHaveLength(1)
    vi.advanceTimersByTime(7_000)
    const late = member('late')
    cluster.join(late)
    vi.advanceTimersByTime(2_000)
    cluster.ready(late)
    vi.advanceTimersByTime(3_000)
    answer(late)
    expect(await first).toBe(true)
    expect(cluster.waited).toBe(9_000)
    const second = cluster.compute(job(2), frame)
    vi.advanceTimersByTime(1_000)
    answer(late)
    expect(await second).toBe(true)
    expect(cluster.waited).toBe(0)
  })

  it('does not go on from a job that was given up', async () => {
    const first = cluster.compute(job(1), frame)
    vi.advanceTimersByTime(5_000)
    cluster.abandon()
    expect(await first).toBe(false)
    vi.advanceTimersByTime(5_000)
    const second = cluster.compute(job(1), frame)
    vi.advanceTimersByTime(1_000)
    const late = member('late')
    cluster.join(late)
    cluster.ready(late)
    answer(late)
    expect(await second).toBe(true)
    expect(cluster.waited).toBe(1_000)
  })
})
