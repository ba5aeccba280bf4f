import { describe, expect, it } from 'vitest'
import { epochOfAccuracy } from './reach.ts'

const tests = (accuracy: (epoch: number) => number, count: number) =>
  Array.from({ length: count }, (_, i) => ({ epoch: i + 1, accuracy: accuracy(i + 1) }))

describe('epochOfAccuracy', () => {
  it('follows an error that falls as a power of the epoch', () => {
    // 0.6·t^-0.5 is 0.15 at 16.
    expect(
      epochOfAccuracy(
        tests((t) => 1 - 0.6 * t ** -0.5, 6),
        0.85,
      ),
    ).toBeCloseTo(16, 6)
  })

  it('is not misled by one bad test', () => {
    const one = tests((t) => 1 - 0.6 * t ** -0.5, 8).with(5, { epoch: 6, accuracy: 0.1 })
    expect(epochOfAccuracy(one, 0.85)).toBeCloseTo(16, 0)
  })

  it('does not know from two tests, or from tests that get no better', () => {
    expect(
      epochOfAccuracy(
        tests(() => 0.5, 2),
        0.85,
      ),
    ).toBeUndefined()
    expect(
      epochOfAccuracy(
        tests((t) => 0.5 - 0.01 * t, 6),
        0.85,
      ),
    ).toBeUndefined()
  })
})
