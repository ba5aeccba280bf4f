import { describe, expect, it } from 'vitest'
import { Ledger } from './ledger.ts'

const ids = (...values: number[]) => Uint32Array.from(values)
const wrong = (message: RegExp): unknown =>
  expect.objectContaining({ code: 'E_LEDGER', message: expect.stringMatching(message) as string })

describe('Ledger', () => {
  it('closes an epoch in which each sample was applied once, in any order', () => {
    const ledger = new Ledger(4)
    ledger.begin(ids(3))
    ledger.apply(ids(0, 2))
    ledger.apply(ids(1))
    expect(ledger.count).toBe(4)
    ledger.close()
    ledger.begin(ids())
    ledger.apply(ids(3, 2, 1, 0))
    ledger.close()
  })

  it('refuses a sample that is applied twice, and an epoch that left one out', () => {
    const ledger = new Ledger(3)
    ledger.begin(ids(1))
    ledger.apply(ids(0))
    expect(() => ledger.apply(ids(1))).toThrowError(wrong(/sample 1 was applied twice/))
    expect(() => ledger.close()).toThrowError(wrong(/2 of 3 .* sample 2 was not/))
  })
})
