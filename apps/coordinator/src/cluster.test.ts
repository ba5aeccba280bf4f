import { encodeFrame } from '@convoy/protocol'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Cluster, type Job } from './cluster.ts'
import type { RunEvent } from './events.ts'
import { Member } from './member.ts'
import type { ParameterFrame } from './parameters.ts'

const frame = {
  version: 1,
  bytes: encodeFrame({ kind: 'parameters', step: 1 }),
  retain() {},
  release() {},
} as ParameterFrame

const job: Job = {
  ...{ task: 'gradient', planned: true, largest: 64, epoch: 0, step: 4, units: 1 },
  samples: (lo, hi) => hi - lo,
  encoding: () => 'float32',
  request: () => ({ pixels: 'none', payloads: [] }),
  accept() {},
}

/** A worker whose connection only keeps what it is sent. */
function member(name: string): Member {
  const numerics = {
    ...{ engine: 'none', version: '1', precision: 'float32', instructionSet: 'none', threads: 1 },
  }
  const hello = { instance: name, engine: 'none', numerics } as ConstructorParameters<typeof Member>[0]
  const socket = { readyState: 1, OPEN: 1, send() {} } as unknown as Member['socket']
  return new Member(hello, name, socket, true)
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
    void cluster.compute(job, frame)
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
    void cluster.compute(job, frame)
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
      const done = cluster.compute({ ...job, step }, frame)
      vi.advanceTimersByTime(40_000)
      const [{ id }] = [...quick.assignments.values()]
      const answer = { kind: 'gradient', id, step, lo: 0, hi: 1, count: 1, loss: 0, correct: 0 } as const
      cluster.answer(quick, { ...answer, seconds: 40 }, new Uint8Array())
      expect(await done).toBe(true)
    }
    expect(of('workerStalled')).toMatchObject([{ worker: 'slow', compiling: true }])
    expect(of('waiting')).toEqual([])
  })
})
