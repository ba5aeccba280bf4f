import { describe, expect, it } from 'vitest'
import { counted, duration, percent } from './format.ts'

describe('duration', () => {
  it.each([
    [0, '0 s'],
    [59.4, '59 s'],
    [61, '1 min 01 s'],
    [3_600, '1 h 00 min'],
    [7_260, '2 h 01 min'],
    [90_000, '1 d 1 h'],
    [NaN, '–'],
    [Infinity, '–'],
  ])('%s s is %s', (seconds, text) => expect(duration(seconds)).toBe(text))
})

describe('percent', () => {
  it('has two places', () => expect(percent(0.90916)).toBe('90.92 %'))
})

describe('counted', () => {
  it('has one thing in the singular', () =>
    expect([0, 1, 1_024].map((n) => counted(n, 'step'))).toEqual(['0 steps', '1 step', '1,024 steps']))
})
