import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { DivergenceGuard } from './divergence.ts'

const guessing = Math.log(10)

/** The first judgement on mean costs of batches of 100, and its step. */
function judge(costs: readonly number[], deadAfter = 200) {
  const guard = new DivergenceGuard(guessing, deadAfter)
  for (const [i, cost] of costs.entries()) {
    const found = guard.step(i + 1, 100 * cost, 100)
    if (found) return { reason: found.reason, step: i + 1 }
  }
  return undefined
}
const curve = (steps: number, cost: (step: number) => number) =>
  Array.from({ length: steps }, (_, i) => cost(i))

describe('DivergenceGuard', () => {
  it('lets a cost fall, flatten and jump about', () => {
    fc.assert(
      fc.property(fc.infiniteStream(fc.double({ min: -0.5, max: 0.5, noNaN: true })), (noise) => {
        const costs = curve(500, (i) => 0.3 + 2 * Math.exp(-i / 80) + (noise.next().value as number) * 0.5)
        expect(judge(costs)).toBeUndefined()
      }),
      { numRuns: 20 },
    )
  })

  it('lets a low cost rise to several times itself, as long as it is better than guessing', () => {
    expect(judge(curve(300, (i) => (i < 200 ? 2 * Math.exp(-i / 20) + 0.01 : 1)))).toBeUndefined()
  })

  it('sees the cost rise far above its best', () => {
    const costs = curve(300, (i) => (i < 100 ? 2.3 - i / 100 : 2 + (i - 100) / 5))
    expect(judge(costs)?.reason).toBe('lossRose')
  })

  it('sees a start that never learns, once enough was done, and can be told not to look', () => {
    expect(judge(curve(400, () => guessing))).toEqual({ reason: 'deadStart', step: 200 })
    expect(
      judge(
        curve(400, () => guessing),
        0,
      ),
    ).toBeUndefined()
    expect(judge(curve(199, () => guessing))).toBeUndefined()
    expect(judge(curve(400, (i) => (i < 50 ? guessing - 0.1 : guessing)))).toBeUndefined()
  })

  it('judges the same after it was put away and taken up again', () => {
    const costs = curve(400, () => guessing)
    for (const cut of [1, 95, 199]) {
      let guard = new DivergenceGuard(guessing, 200)
      const found = costs.map((cost, i) => {
        if (i === cut) {
          const { state } = guard
          guard = new DivergenceGuard(guessing, 200)
          guard.state = JSON.parse(JSON.stringify(state)) as typeof state
        }
        return guard.step(i + 1, 100 * cost, 100)
      })
      expect(found.findIndex(Boolean)).toBe(199)
    }
  })
})
