import { describe, expect, it } from 'vitest'
import { agreed, Jury, voteOf } from './jury.ts'
import { Member } from './member.ts'
import { WorkerRecords } from './records.ts'

const answer = {
  kind: 'gradient',
  id: 1,
  step: 1,
  lo: 0,
  hi: 1,
  count: 16,
  loss: 2,
  correct: 1,
  seconds: 1,
} as const
const vote = (worker: string, byte: number) => voteOf(worker, answer, Uint8Array.of(byte))

/** A jury of workers that are ready; those in capitals compute in bf16. */
function juryOf(...names: string[]) {
  const records = new WorkerRecords()
  const members = new Map(
    names.map((name) => {
      const precision = name === name.toUpperCase() ? 'bf16' : 'float32'
      const numerics = { engine: 'none', version: '1', precision, instructionSet: 'none', threads: 1 }
      const hello = { instance: name, engine: 'none', numerics } as ConstructorParameters<typeof Member>[0]
      const member = new Member(hello, name, undefined as never, false)
      member.state = 'ready'
      records.join(member)
      return [name, member]
    }),
  )
  return { jury: new Jury(members, records), records, of: (name: string) => members.get(name)! }
}

describe('agreed', () => {
  it('is what two different workers gave alike', () => {
    expect(agreed([vote('a', 1), vote('b', 2)])).toBeUndefined()
    expect(agreed([vote('a', 1), vote('a', 1)])).toBeUndefined()
    expect(agreed([vote('a', 1), vote('b', 2), vote('c', 2)])).toBe(vote('c', 2).digest)
  })

  it('looks at the totals too', () => {
    expect(voteOf('a', { ...answer, loss: 3 }, Uint8Array.of(1)).digest).not.toBe(vote('a', 1).digest)
  })
})

describe('Jury', () => {
  it('has work verified by another worker of the same arithmetic', () => {
    const { jury, records, of } = juryOf('a', 'b', 'C')
    expect(jury.mayVote([vote('a', 1)], of('b'))).toBe(true)
    expect(jury.mayVote([vote('a', 1)], of('a'))).toBe(false)
    expect(jury.mayVote([vote('a', 1)], of('C'))).toBe(false)
    expect(jury.fresh([vote('a', 1)])).toBe(true)
    for (let i = 0; i < 3; i++) records.strike('b')
    expect(jury.mayVote([vote('a', 1)], of('b'))).toBe(false)
    expect(jury.fresh([vote('a', 1)])).toBe(false)
  })

  it('asks the same again in a dispute only where there is nobody else, and once', () => {
    const two = juryOf('a', 'b')
    const dispute = [vote('a', 1), vote('b', 2)]
    expect(two.jury.mayVote(dispute, two.of('a'))).toBe(true)
    expect(two.jury.mayVote([...dispute, vote('a', 3)], two.of('a'))).toBe(false)
    const three = juryOf('a', 'b', 'c')
    expect(three.jury.mayVote(dispute, three.of('a'))).toBe(false)
    expect(three.jury.mayVote(dispute, three.of('c'))).toBe(true)
  })

  it('believes that work is not finite of a worker that gave good answers, or where there is none', () => {
    const { jury, records, of } = juryOf('a', 'b', 'c')
    expect(jury.mayJudge('a', of('a'))).toBe(false)
    expect(jury.convicts('a', of('b'))).toBe(true)
    records.took('c', 1)
    expect(jury.convicts('a', of('b'))).toBe(false)
    expect(jury.mayJudge('a', of('b'))).toBe(false)
    expect(jury.mayJudge('a', of('c'))).toBe(true)
    expect(jury.convicts('a', of('c'))).toBe(true)
  })

  it('lets one that is alone convict the work by itself', () => {
    const { jury, of } = juryOf('a', 'b')
    expect(jury.convicts('a', of('a'))).toBe(false)
    of('b').state = 'stalled'
    expect(jury.mayJudge('a', of('a'))).toBe(true)
    expect(jury.convicts('a', of('a'))).toBe(true)
  })
})
