import { describe, expect, it } from 'vitest'
import type { Member } from './member.ts'
import { Pace } from './pace.ts'
import { WorkerRecords } from './records.ts'
import { Tally } from './tally.ts'

const member = (name: string, instance = `process of ${name}`) =>
  ({ name, instance, pace: new Pace(), tally: new Tally() }) as Member

function recordsOf(...names: string[]): WorkerRecords {
  const records = new WorkerRecords()
  for (const name of names) records.join(member(name))
  return records
}

describe('WorkerRecords', () => {
  it('sets aside after three strikes in a row, for twice as long each time', () => {
    const records = recordsOf('a', 'b')
    const strikes = (n: number) => Array.from({ length: n }, () => records.strike('a'))
    expect(strikes(2)).toEqual([undefined, undefined])
    records.took('a', 1)
    expect(strikes(3)).toEqual([undefined, undefined, 10])
    expect(records.aside('a')).toBe(true)
    expect(records.aside('b')).toBe(false)
    expect(strikes(6)).toEqual([undefined, undefined, 20, undefined, undefined, 40])
    expect(records.tallies.get('a')!.refused).toBe(11)
  })

  it('bans a worker by its name and by its latest process, and says since when its gradients are in doubt', () => {
    const records = recordsOf('a', 'b')
    records.join(member('a', 'second process'))
    records.took('a', undefined)
    expect(records.proven('a')).toBe(false)
    records.took('a', 7)
    records.took('a', 9)
    expect(records.proven('a')).toBe(true)
    expect(records.ban('a')).toBe(7)
    expect(records.aside('a')).toBe(true)
    for (const who of [
      { name: 'a', instance: 'third process' },
      { name: 'c', instance: 'second process' },
    ])
      expect(() => records.checkBan(who)).toThrow(expect.objectContaining({ code: 'E_DISHONEST' }))
    expect(() => records.checkBan({ name: 'c', instance: 'process of a' })).not.toThrow()
    expect(() => records.checkBan(member('b'))).not.toThrow()
  })

  it('hands speed and deeds on to the next connection of a worker', () => {
    const records = recordsOf('a')
    const { pace, tally } = records.of('a')!
    records.join(member('a'))
    expect(records.of('a')!.pace).toBe(pace)
    expect(records.tallies.get('a')).toBe(tally)
    expect(records.of('b')).toBeUndefined()
  })

  it('forgets workers that are gone when there are many, first the useless, but no traffic and no ban', () => {
    const records = recordsOf('bad', 'useful')
    records.took('bad', 1)
    records.ban('bad')
    records.took('useful', 1)
    for (let i = 0; i < 2_000; i++) {
      const one = member(`w${i}`)
      one.tally.sent = 10
      records.join(one)
      records.forget((name) => name === 'w0', false)
    }
    expect(records.size).toBe(1_024)
    expect(records.traffic.sent).toBe(20_000)
    expect(['bad', 'useful', 'w0', 'w1999'].map((name) => records.tallies.has(name))).toEqual(
      Array(4).fill(true),
    )
    expect(records.tallies.has('w1')).toBe(false)
  })
})
