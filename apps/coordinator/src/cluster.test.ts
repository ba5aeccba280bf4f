import { decodeFrame, type CoordinatorMessage, type WorkerMessage } from '@convoy/protocol'
import { cover } from '@convoy/reduction'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Cluster } from './cluster.ts'
import type { RunEvent } from './events.ts'
import { frame, gradientJob } from './fixtures.ts'
import { Member } from './member.ts'

/** A worker whose connection only hands on what it is sent. */
function member(name: string, send: (bytes: Uint8Array) => void = () => {}): Member {
  const numerics = {
    ...{ engine: 'none', version: '1', precision: 'float32', instructionSet: 'none', threads: 1 },
  }
  const hello = { instance: name, engine: 'none', numerics } as ConstructorParameters<typeof Member>[0]
  const socket = { readyState: 1, OPEN: 1, send, terminate() {} } as unknown as Member['socket']
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

/** A worker that does what it is asked, leaf by leaf, over a line on which messages wait until they are let through. */
class Honest {
  member!: Member
  readonly #toWorker: CoordinatorMessage[] = []
  readonly #toCoordinator: WorkerMessage[] = []
  readonly #queue: { id: number; step: number; lo: number; hi: number; next: number }[] = []
  readonly #name: string

  constructor(name: string) {
    this.#name = name
    this.connect()
  }

  /** A new connection; the old one is gone, with all that was under way. */
  connect(): void {
    if (this.member) cluster.leave(this.member, 'connection closed')
    for (const list of [this.#toWorker, this.#toCoordinator, this.#queue]) list.length = 0
    this.member = member(this.#name, (bytes) => {
      const { header } = decodeFrame(bytes)
      this.#toWorker.push(header as CoordinatorMessage)
    })
    cluster.join(this.member)
    cluster.ready(this.member)
  }

  /** Takes the next message in. @param gives Of so many leaves that are not begun, how many it gives up. */
  hear(gives: (leaves: number) => number): void {
    const message = this.#toWorker.shift()
    if (message?.kind === 'work') this.#queue.push({ ...message, next: message.lo })
    if (message?.kind !== 'cancel' && message?.kind !== 'steal') return
    const { id, step, lo, hi } = message
    const at = this.#queue.findIndex((request) => request.id === id)
    if (message.kind === 'cancel') {
      if (at < 0) return
      this.#queue.splice(at, 1)
      this.#toCoordinator.push({ kind: 'failed', id, step, lo, hi, why: 'cancelled' })
      return
    }
    const request = this.#queue[at]
    if (request) {
      // The first leaf of the first request is begun.
      const begun = Math.max(request.next, at === 0 ? request.lo + 1 : request.lo)
      request.hi -= gives(request.hi - begun)
      if (request.hi === request.lo) this.#queue.splice(at, 1)
    }
    this.#toCoordinator.push({ kind: 'yielded', id, step, lo, hi: request?.hi ?? hi })
  }

  /** Computes a leaf; after the last of a request, answers it. */
  compute(): void {
    const [request] = this.#queue
    if (!request || ++request.next < request.hi) return
    this.#queue.shift()
    const { id, step } = request
    for (const [lo, hi] of cover(request.lo, request.hi, UNITS)) {
      const count = hi - lo
      this.#toCoordinator.push({ kind: 'gradient', id, step, lo, hi, count, loss: 0, correct: 0, seconds: 1 })
    }
  }

  /** Has its next message heard. */
  tell(): void {
    const message = this.#toCoordinator.shift()
    if (message && 'id' in message) expect(this.member.awaits(message.id)).toBe(true)
    if (message?.kind === 'gradient') cluster.answer(this.member, message, new Uint8Array())
    else if (message?.kind === 'failed') cluster.failed(this.member, message)
    else if (message?.kind === 'yielded') cluster.yielded(this.member, message)
  }
}

const UNITS = 21

describe('an idle worker', () => {
  /** A job of `UNITS` leaves, and who gave which nodes of it. */
  function bigJob(step: number) {
    const given: { lo: number; hi: number; worker: string }[] = []
    const job = gradientJob(step, (node, worker) => {
      const [lo, hi] = node.split('-').map(Number)
      given.push({ lo, hi, worker })
    })
    return { job: { ...job, units: UNITS }, given }
  }

  const leavesOf = (given: readonly { lo: number; hi: number }[]) =>
    given.flatMap(({ lo, hi }) => Array.from({ length: hi - lo }, (_, i) => lo + i)).sort((a, b) => a - b)

  /** Has two workers do a step, after which their speeds are known. */
  async function warmUp(...workers: Honest[]): Promise<void> {
    const done = cluster.compute(bigJob(1).job, frame)
    for (let turn = 0; turn < 100; turn++) {
      for (const worker of workers) {
        worker.hear(() => 0)
        vi.advanceTimersByTime(10)
        worker.compute()
        worker.tell()
      }
    }
    expect(await done).toBe(true)
  }

  it('is left what another has not begun', async () => {
    const [slow, quick] = [new Honest('slow'), new Honest('quick')]
    await warmUp(slow, quick)
    const { job, given } = bigJob(2)
    const done = cluster.compute(job, frame)
    let asked = 0
    for (let turn = 0; turn < 100; turn++) {
      slow.hear((leaves) => (asked++, leaves >> 1))
      if (turn % 10 === 0) slow.compute()
      slow.tell()
      for (let i = 0; i < 3; i++) quick.hear(() => 0)
      quick.compute()
      quick.tell()
      vi.advanceTimersByTime(10)
    }
    expect(await done).toBe(true)
    expect(asked).toBeGreaterThan(0)
    expect(leavesOf(given)).toEqual([...Array(UNITS).keys()])
    const bySlow = given.filter(({ worker }) => worker === 'slow')
    expect(leavesOf(bySlow).length).toBeLessThan(8)
    expect(cluster.wasted).toBe(0)
    expect(of('refused', 'workerStalled')).toEqual([])
  })

  it('does what another is late with though whoever did it before is lost', async () => {
    const [late, lost] = [new Honest('late'), new Honest('lost')]
    await warmUp(late, lost)
    const { job, given } = bigJob(2)
    const done = cluster.compute(job, frame)
    vi.advanceTimersByTime(20_000)
    const third = new Honest('third')
    const work = (worker: Honest, turns: number) => {
      for (let turn = 0; turn < turns; turn++) {
        worker.hear(() => 0)
        worker.compute()
        worker.tell()
        vi.advanceTimersByTime(10)
      }
    }
    work(lost, 60)
    cluster.leave(lost.member, 'connection closed')
    work(third, 500)
    expect(await done).toBe(true)
    expect(leavesOf(given)).toEqual([...Array(UNITS).keys()])
    expect(late.member.state).toBe('stalled')
  })

  it('is believed only about what it was asked', async () => {
    const [one, two] = [new Honest('one'), new Honest('two')]
    await warmUp(one, two)
    const done = cluster.compute(bigJob(2).job, frame)
    const [assignment] = one.member.assignments.values()
    const { id, step, lo, hi } = assignment
    cluster.yielded(one.member, { kind: 'yielded', id, step, lo, hi: lo + 1 })
    expect(of('refused')).toMatchObject([{ worker: 'one', code: 'E_NOT_ASKED' }])
    expect(assignment.hi).toBe(hi)
    one.member.steal(assignment, { leaf: 1, thiefLeaf: 1, overhead: 0 })
    cluster.yielded(one.member, { kind: 'yielded', id, step, lo, hi: hi + 1 })
    expect(of('refused')).toHaveLength(2)
    cluster.abandon()
    expect(await done).toBe(false)
  })

  it('and those that come, go, are late and are cancelled do each leaf once, whatever is heard when', async () => {
    const action = fc.oneof(
      { weight: 30, arbitrary: fc.record({ what: fc.constant('hear'), who: fc.nat(2), gives: fc.nat(9) }) },
      { weight: 20, arbitrary: fc.record({ what: fc.constant('compute'), who: fc.nat(2) }) },
      { weight: 30, arbitrary: fc.record({ what: fc.constant('tell'), who: fc.nat(2) }) },
      { weight: 3, arbitrary: fc.record({ what: fc.constant('wait'), who: fc.nat(2_000) }) },
      { weight: 1, arbitrary: fc.record({ what: fc.constant('connect'), who: fc.nat(2) }) },
      { weight: 1, arbitrary: fc.record({ what: fc.constant('abandon'), who: fc.nat(2) }) },
    )
    await fc.assert(
      fc.asyncProperty(
        fc.array(action, { maxLength: 400, size: 'max' }),
        fc.boolean(),
        async (actions, stuck) => {
          cluster.dispose()
          events = []
          cluster = new Cluster((event) => events.push(event))
          const workers = ['a', 'b', 'c'].map((name) => new Honest(name))
          await warmUp(...workers)
          let step = 2
          let at = bigJob(step)
          let done = cluster.compute(at.job, frame)
          let over = false
          const next = () => {
            at = bigJob(++step)
            done = cluster.compute(at.job, frame)
            over = false
            void done.then((value) => (over = value))
          }
          const check = () => {
            expect(leavesOf(at.given)).toEqual([...Array(UNITS).keys()])
            for (const worker of workers) expect(worker.member.assignments.size).toBe(0)
          }
          void done.then((value) => (over = value))
          for (const { what, who, ...more } of actions) {
            const worker = workers[who % 3]
            if (what === 'hear') worker.hear((leaves) => Math.min(leaves, 'gives' in more ? more.gives : 0))
            else if (what === 'compute') worker.compute()
            else if (what === 'tell') worker.tell()
            else if (what === 'connect') worker.connect()
            else if (what === 'wait') vi.advanceTimersByTime(who)
            else {
              cluster.abandon()
              await done
              next()
            }
            await Promise.resolve()
            if (over) {
              check()
              next()
            }
          }
          // One may never do anything again; the others do its part.
          for (let turn = 0; turn < 10_000 && !over; turn++) {
            for (const worker of stuck ? workers.slice(1) : workers) {
              worker.hear((leaves) => leaves >> 1)
              worker.compute()
              worker.tell()
              vi.advanceTimersByTime(50)
            }
            await Promise.resolve()
          }
          expect(over).toBe(true)
          check()
          expect(of('refused')).toEqual([])
        },
      ),
      { numRuns: 300 },
    )
  })
})
