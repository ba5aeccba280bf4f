import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { claim, giveUp, leavesToGive, openClaims, unclaimed } from './claims.ts'

describe('claims', () => {
  it('give each leaf to one side, whatever the order', () => {
    fc.assert(
      fc.property(fc.nat(300), fc.array(fc.nat(5)), (leaves, turns) => {
        const claims = openClaims(leaves)
        let [claimed, end] = [0, leaves]
        for (const turn of turns) {
          if (turn === 0) {
            const before = end
            end = giveUp(claims, (left) => {
              expect(left).toBe(before - claimed)
              return left >> 1
            })
          } else if (claim(claims)) claimed++
          expect(claimed).toBeLessThanOrEqual(end)
          expect(unclaimed(claims)).toBe(end - claimed)
        }
        while (claim(claims)) claimed++
        expect(claimed).toBe(end)
      }),
    )
  })

  it('refuse more leaves than they can count', () => {
    expect(unclaimed(openClaims(65_535))).toBe(65_535)
    expect(() => openClaims(65_536)).toThrowError(expect.objectContaining({ code: 'E_MESSAGE' }))
  })
})

describe('leavesToGive', () => {
  const equal = { leafSeconds: 1, thiefLeafSeconds: 1, overheadSeconds: 0.1 }

  it('gives an equal one half, and nothing of what ends sooner here', () => {
    expect([0, 1, 2, 3, 8].map((left) => leavesToGive(left, 0, equal))).toEqual([0, 1, 1, 2, 4])
    expect(leavesToGive(1, 0, { ...equal, overheadSeconds: 0.6 })).toBe(0)
  })

  it('gives a slow one little, and a fast one nearly all', () => {
    expect(leavesToGive(8, 0, { ...equal, thiefLeafSeconds: 10 })).toBe(0)
    expect(leavesToGive(8, 0, { ...equal, thiefLeafSeconds: 3 })).toBe(2)
    expect(leavesToGive(8, 0, { ...equal, thiefLeafSeconds: 0.01 })).toBe(8)
  })

  it('counts what is to be done before', () => {
    expect(leavesToGive(2, 4, equal)).toBe(2)
  })
})
