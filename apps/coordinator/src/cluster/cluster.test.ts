import { decodeFrame, type CoordinatorMessage, type MessageOf, type WorkerMessage } from '@convoy/protocol'
import { ConvoyError } from '@convoy/errors'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Cluster } from './cluster.ts'
import type { RunEvent } from '../events.ts'
import { frame, gradientJob } from '../fixtures.ts'
import { FORWARD_COST, type Job } from './job.ts'
import { Member } from './member.ts'

/** A worker whose connection only hands on what it is sent. */
function member(name: string, send: (bytes: Uint8Array) => void = () => {}, relay?: true): Member {
  const numerics = {
    ...{ engine: 'none', version: '1', precision: 'float32', instructionSet: 'none', threads: 1 },
  }
  const hello = { instance: name, engine: 'none', numerics, relay } as ConstructorParameters<typeof Member>[0]
  const socket = { readyState: 1, OPEN: 1, send, terminate() {}, close() {} } as unknown as Member['socket']
  return new Member(hello, name, socket, true)
}

/** A gradient of all three leaves, or as many as a worker is given. */
const job = (step: number) => gradientJob(step, () => {})

/** Has a worker answer all that it was asked. */
function answer(worker: Member, payload = new Uint8Array()): void {
  for (const { id, step, lo, hi, samples: count } of [...worker.assignments.values()]) {
    const header = { kind: 'gradient', id, step, lo, hi, count, loss: 0, correct: 0, seconds: 1 } as const
    cluster.answer(worker, header, payload)
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

it('takes no worker for late that has evaluated before, which takes a third of the time a sample', async () => {
  const one = member('one')
  cluster.join(one)
  cluster.ready(one)
  const leaf = { samples: (lo: number, hi: number) => 64 * (hi - lo), largest: 1 }
  for (let step = 0; step < 15; step++) {
    const evaluated = cluster.compute({ ...job(step), ...leaf, units: 1, cost: FORWARD_COST }, frame)
    vi.advanceTimersByTime(1_000)
    answer(one)
    await evaluated
  }
  void cluster.compute({ ...job(15), ...leaf, units: 1 }, frame)
  vi.advanceTimersByTime(3_000)
  expect(of('workerStalled')).toEqual([])
  vi.advanceTimersByTime(6_000)
  expect(of('workerStalled')).toHaveLength(1)
})

describe('a round', () => {
  const round = { step: 0, rates: [0.1] }

  it.each([
    {
      name: 'a replica that nobody has begun in a round',
      job: { ...job(2), round, largest: 1 },
      has: [[2, 3]],
    },
    { name: 'nothing in a step', job: { ...job(2), largest: 1 }, has: [] },
  ])('has a new worker take $name', async ({ job: second, has }) => {
    const [old, late] = [member('old'), member('late')]
    cluster.join(old)
    cluster.ready(old)
    const first = cluster.compute(job(1), frame)
    vi.advanceTimersByTime(1_000)
    answer(old)
    await first
    void cluster.compute(second, frame)
    cluster.join(late)
    cluster.ready(late)
    expect([...late.assignments.values()].map(({ lo, hi }) => [lo, hi])).toEqual(has)
    expect(old.assignments.size).toBeGreaterThan(0)
  })

  it('has as much patience with a first worker as its replica has samples', () => {
    cluster.join(member('first'))
    for (const one of cluster.members) cluster.ready(one)
    void cluster.compute({ ...job(1), round, samples: (lo, hi) => 256 * (hi - lo) }, frame)
    vi.advanceTimersByTime(179_000)
    expect(of('workerStalled')).toEqual([])
    vi.advanceTimersByTime(2_000)
    expect(of('workerStalled')).toMatchObject([{ worker: 'first', step: 1 }])
  })

  it('is cut among relays by what they say that a replica takes, however few they had before', async () => {
    const relays = ['north', 'south'].map((name) => member(name, () => {}, true))
    const shares: number[][] = []
    for (let step = 1; step <= 3; step++) {
      // The second one comes when the first has done a round alone.
      const late = relays[step - 1] as Member | undefined
      if (late) cluster.join(late)
      if (late) cluster.ready(late)
      const done = cluster.compute({ ...job(step), round, units: 12, largest: 1, largestSum: 8 }, frame)
      const asked = relays.map((relay) => [...relay.assignments.values()])
      shares.push(asked.map((all) => all.reduce((sum, { samples }) => sum + samples, 0)))
      vi.advanceTimersByTime(20_000)
      relays.forEach((relay, i) => {
        for (const { id, lo, hi, samples: count } of asked[i]) {
          const header = { kind: 'gradient', id, step, lo, hi, count, loss: 0, correct: 0 } as const
          cluster.answer(relay, { ...header, seconds: count }, new Uint8Array())
        }
      })
      await done
    }
    expect(shares).toEqual([
      [12, 0],
      [11, 1],
      [6, 6],
    ])
    expect(of('workerStalled', 'refused')).toEqual([])
  })
})

describe('a gradient that comes in two frames', () => {
  const tails: string[] = []
  const refusals: unknown[] = []
  const listen = (bytes: Uint8Array) => {
    const { kind, code } = decodeFrame(bytes).header as { kind: string; code?: string }
    if (kind === 'refused') refusals.push(code)
  }
  const cut = (step: number, fails = false): Job => ({
    ...{ ...job(step), cut: 5 },
    acceptTail({ lo, hi }) {
      if (fails) throw new ConvoyError('E_NOT_FINITE', 'a gradient holds NaN or Inf', 'Nothing.')
      tails.push(`${lo}-${hi}`)
    },
  })
  /** Sends the end of all that a worker was asked for. */
  function answerTail(worker: Member): void {
    for (const { id, step, lo, hi } of [...worker.assignments.values()])
      cluster.answerTail(worker, { kind: 'tail', id, step, lo, hi }, new Uint8Array())
  }
  const joined = (name: string, relay?: true) => {
    const worker = member(name, listen, relay)
    cluster.join(worker)
    cluster.ready(worker)
    return worker
  }
  beforeEach(() => {
    tails.length = refusals.length = 0
  })

  it('has its end taken once, and what is lost with its worker computed by another', async () => {
    const one = joined('one')
    const done = cluster.compute(cut(1), frame)
    answerTail(one)
    const first = [...tails]
    expect(first.length).toBeGreaterThan(0)
    answerTail(one)
    expect([tails, refusals]).toEqual([first, ['E_NOT_ASKED']])
    const two = joined('two')
    cluster.leave(one, 'connection closed')
    while (two.assignments.size > 0) {
      answerTail(two)
      answer(two)
    }
    expect(await done).toBe(true)
    expect(refusals).toEqual(['E_NOT_ASKED'])
  })

  it('is refused as a whole where its end is not usable, and not blamed twice', () => {
    const [one, two] = [joined('one'), joined('two')]
    void cluster.compute(cut(1, true), frame)
    const [[id, { lo, hi }]] = one.assignments
    answerTail(one)
    expect(refusals).toEqual(['E_NOT_FINITE'])
    expect(one.awaits(id)).toBe(true)
    cluster.answer(
      one,
      { kind: 'gradient', id, step: 1, lo, hi, count: 1, loss: 0, correct: 0, seconds: 1, head: true },
      new Uint8Array(),
    )
    expect([refusals, one.awaits(id)]).toEqual([['E_NOT_FINITE'], false])
    expect(two.assignments.size).toBeGreaterThan(0)
  })

  it('is asked of workers, not of relays, nor by jobs that are not cut', () => {
    const relay = joined('relay', true)
    void cluster.compute(cut(1), frame)
    answerTail(relay)
    expect([tails, refusals]).toEqual([[], ['E_NOT_ASKED']])
  })
})

/** A worker that does what it is asked, leaf by leaf, over a line on which messages wait until they are let through. */
class Honest {
  member!: Member
  readonly #toWorker: CoordinatorMessage[] = []
  readonly #toCoordinator: WorkerMessage[] = []
  readonly #queue: { work: MessageOf<CoordinatorMessage, 'work'>; left: number }[] = []
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
      this.#toWorker.push(decodeFrame(bytes).header as CoordinatorMessage)
    })
    cluster.join(this.member)
    cluster.ready(this.member)
  }

  /** Takes the next message in. */
  hear(): void {
    const message = this.#toWorker.shift()
    if (message?.kind === 'work') this.#queue.push({ work: message, left: message.hi - message.lo })
    if (message?.kind !== 'cancel') return
    const { id, step, lo, hi } = message
    const at = this.#queue.findIndex(({ work }) => work.id === id)
    if (at < 0) return
    this.#queue.splice(at, 1)
    this.#toCoordinator.push({ kind: 'failed', id, step, lo, hi, why: 'cancelled' })
  }

  /** Computes a leaf; after the last of a request, answers it. */
  compute(): void {
    const [request] = this.#queue
    if (!request || --request.left > 0) return
    this.#queue.shift()
    const { id, step, lo, hi, count } = request.work
    this.#toCoordinator.push({ kind: 'gradient', id, step, lo, hi, count, loss: 0, correct: 0, seconds: 1 })
  }

  /** Has its next message heard. */
  tell(): void {
    const message = this.#toCoordinator.shift()
    if (message && 'id' in message) expect(this.member.awaits(message.id)).toBe(true)
    if (message?.kind === 'gradient') cluster.answer(this.member, message, new Uint8Array())
    else if (message?.kind === 'failed') cluster.failed(this.member, message)
  }

  /** Does so many leaves, 10 ms each. */
  work(leaves: number): void {
    for (let leaf = 0; leaf < leaves; leaf++) {
      this.hear()
      vi.advanceTimersByTime(10)
      this.compute()
      this.tell()
    }
  }
}

const LEAVES = 21

describe('workers that come, go, are late and are cancelled', () => {
  /** A job of `LEAVES` leaves, and which of them were taken. */
  function bigJob(step: number) {
    const taken: number[] = []
    const job = gradientJob(step, (node) => {
      const [lo, hi] = node.split('-').map(Number)
      for (let leaf = lo; leaf < hi; leaf++) taken.push(leaf)
    })
    return { job: { ...job, units: LEAVES }, taken }
  }

  const all = [...Array(LEAVES).keys()]
  const sorted = (taken: readonly number[]) => taken.slice().sort((a, b) => a - b)

  /** Has workers do a step, after which their speeds are known. */
  async function warmUp(...workers: Honest[]): Promise<void> {
    const done = cluster.compute(bigJob(1).job, frame)
    for (let turn = 0; turn < 100; turn++) for (const worker of workers) worker.work(1)
    expect(await done).toBe(true)
  }

  it('do what another is late with, though whoever did it first is lost', async () => {
    const [late, lost] = [new Honest('late'), new Honest('lost')]
    await warmUp(late, lost)
    const { job, taken } = bigJob(2)
    const done = cluster.compute(job, frame)
    lost.work(60)
    vi.advanceTimersByTime(200)
    expect(late.member.state).toBe('stalled')
    lost.hear()
    cluster.leave(lost.member, 'connection closed')
    new Honest('third').work(500)
    expect(sorted(taken)).toEqual(all)
    expect(await done).toBe(true)
  })

  it('do each leaf once, whatever is heard when', async () => {
    const of3 = (what: 'hear' | 'compute' | 'tell' | 'connect' | 'abandon') =>
      fc.record({ what: fc.constant(what), who: fc.nat(2) })
    const action = fc.oneof(
      { weight: 30, arbitrary: of3('hear') },
      { weight: 20, arbitrary: of3('compute') },
      { weight: 30, arbitrary: of3('tell') },
      { weight: 3, arbitrary: fc.record({ what: fc.constant('wait' as const), who: fc.nat(2_000) }) },
      { weight: 1, arbitrary: of3('connect') },
      { weight: 1, arbitrary: of3('abandon') },
    )
    const actions = fc.array(action, { maxLength: 400, size: 'max' })
    await fc.assert(
      fc.asyncProperty(actions, fc.boolean(), async (actions, stuck) => {
        cluster.dispose()
        events = []
        cluster = new Cluster((event) => events.push(event))
        const workers = ['a', 'b', 'c'].map((name) => new Honest(name))
        await warmUp(...workers)
        let step = 1
        let at: ReturnType<typeof bigJob>
        let done: Promise<boolean>
        let over: boolean
        const next = () => {
          at = bigJob(++step)
          over = false
          done = cluster.compute(at.job, frame)
          void done.then((value) => (over = value))
        }
        const check = () => {
          expect(sorted(at.taken)).toEqual(all)
          for (const { member } of workers) expect(member.assignments.size).toBe(0)
        }
        next()
        for (const { what, who } of actions) {
          if (what === 'wait') vi.advanceTimersByTime(who)
          else if (what === 'abandon') {
            cluster.abandon()
            await done!
            next()
          } else workers[who][what]()
          await Promise.resolve()
          if (!over!) continue
          check()
          next()
        }
        // One may never do anything again; the others do its part.
        for (let turn = 0; turn < 20_000 && !over!; turn++) {
          for (const worker of stuck ? workers.slice(1) : workers) worker.work(1)
          // Of a worker of which nothing is known, one is patient.
          vi.advanceTimersByTime(100)
          await Promise.resolve()
        }
        expect(over!).toBe(true)
        check()
        expect(of('refused')).toEqual([])
      }),
      { numRuns: 200 },
    )
  })
})

describe('a relay', () => {
  it('that gave a wrong sum is told so once, since it may not be its own fault, and then sent away', async () => {
    const told: string[] = []
    const relay = member(
      'south',
      (bytes) => told.push((decodeFrame(bytes).header as CoordinatorMessage).kind),
      true,
    )
    const workers = [relay, member('a'), member('b')]
    const doubts: number[] = []
    cluster.verify = 1
    cluster.onDishonest = (since) => {
      doubts.push(since)
      cluster.abandon()
    }
    for (const worker of workers) cluster.join(worker)
    for (const worker of workers) cluster.ready(worker)
    for (let step = 1; step <= 2; step++) {
      const done = cluster.compute(job(step), frame)
      for (let turn = 0; turn < 10; turn++)
        for (const worker of workers) answer(worker, worker === relay ? Uint8Array.of(1) : undefined)
      await done
      expect(cluster.size).toBe(4 - step)
    }
    expect(of('dishonest')).toMatchObject([{ worker: 'south', warned: true }, { worker: 'south' }])
    expect(doubts).toEqual([1, 1])
    expect(told.filter((kind) => kind === 'refused' || kind === 'goodbye')).toEqual(['refused', 'goodbye'])
  })

  it('says whose gradients are in doubt, and from when on', async () => {
    const relay = member('south', () => {}, true)
    const doubts: number[] = []
    cluster.verify = 1
    cluster.onDishonest = (since) => doubts.push(since)
    cluster.join(relay)
    cluster.ready(relay)
    const done = cluster.compute(job(5), frame)
    answer(relay)
    expect(await done).toBe(true)
    const found = { kind: 'dishonest', worker: 'w', lo: 0, hi: 1 } as const
    cluster.dishonestBelow(relay, { ...found, step: 7, since: 7 })
    cluster.dishonestBelow(relay, { ...found, step: 7, since: 6 })
    cluster.dishonestBelow(relay, { ...found, step: 7, since: 2 })
    expect(of('dishonest')).toHaveLength(3)
    expect(of('dishonest')[0]).toMatchObject({ worker: 'south/w', step: 7 })
    // Before step 5 nothing was taken from it.
    expect(doubts).toEqual([6, 5])
  })

  it('that has no workers any more gets no work until it has some', () => {
    const relay = member('south', () => {}, true)
    cluster.join(relay)
    cluster.ready(relay)
    void cluster.compute(job(1), frame)
    expect(relay.assignments.size).toBe(1)
    const useful: boolean[] = []
    cluster.onChange = () => useful.push(cluster.useful)
    cluster.leaving(relay, undefined)
    expect(relay.assignments.size).toBe(0)
    cluster.ready(relay)
    expect(relay.assignments.size).toBe(1)
    // A relay before this one has none either for so long.
    expect(useful).toEqual([false, true])
    expect(of('waiting').at(-1)).toMatchObject({
      reason: 'no relay has a worker; the run goes on when one comes',
    })
  })
})

describe("a node of another's job", () => {
  it('has its own leaves, and others may come and go while it is computed', async () => {
    const worker = member('a')
    const held = () => [...worker.assignments.values()].map(({ lo, hi }) => [lo, hi])
    cluster.join(worker)
    cluster.ready(worker)
    const done = cluster.compute({ ...job(1), first: 4, units: 3 }, frame)
    expect(held()).toEqual([[4, 7]])
    cluster.add(8, 10)
    cluster.add(10, 11)
    cluster.withdraw(8, 10)
    answer(worker)
    expect(held()).toEqual([[10, 11]])
    cluster.withdraw(10, 11)
    expect(held()).toEqual([])
    expect(await done).toBe(false)
    expect(cluster.computing).toBe(false)
  })
})

it('says nothing of workers that come and go once it is closed', () => {
  const early = member('early')
  cluster.join(early)
  cluster.dispose()
  cluster.join(member('late'))
  cluster.leave(early, 'connection closed')
  expect(events).toMatchObject([{ event: 'workerJoined', worker: 'early' }])
})
