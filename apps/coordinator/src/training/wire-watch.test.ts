import { describe, expect, it } from 'vitest'
import { WireWatch } from './wire-watch.ts'

/** What is said of so many equal steps, and at which. */
function said(times: Partial<Parameters<WireWatch['observe']>[0]>, { steps = 100, left = 10_000 } = {}) {
  const watch = new WireWatch()
  const all = { seconds: 0.1, computeSeconds: 0.01, updateSeconds: 0.01, workers: 2, ...times }
  return Array.from({ length: steps }, () => watch.observe(all, left)).flatMap((one, i) =>
    one ? [{ step: i + 1, ...one }] : [],
  )
}

describe('WireWatch', () => {
  it('says once that a GPU waits for its wire, and the rounds that hide it', () => {
    const [{ share, ...one }, ...more] = said({})
    expect(share).toBeCloseTo(0.8)
    // Both have 20 ms of batches to do for 80 ms of wire: 16 steps are four times that.
    expect(one).toEqual({ step: 20, replicas: 2, localSteps: 16 })
    expect(more).toEqual([])
  })

  it('is silent where computing takes longer, or little is left', () => {
    expect(said({ computeSeconds: 0.06 })).toEqual([])
    expect(said({}, { left: 700 })).toEqual([])
    expect(said({}, { left: 800 })).toHaveLength(1)
    expect(said({}, { steps: 19 })).toEqual([])
  })

  it('takes the middle of twenty steps, and looks again', () => {
    const watch = new WireWatch()
    const step = (computeSeconds: number) =>
      watch.observe({ seconds: 0.1, computeSeconds, updateSeconds: 0, workers: 1 }, 10_000)
    const told = Array.from({ length: 40 }, (_, i) => step(i < 20 && i % 5 !== 0 ? 0.09 : 0.01))
    expect(told.findIndex((one) => one !== undefined)).toBe(39)
  })
})
