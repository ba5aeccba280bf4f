import type { LiveHistory } from '@convoy/protocol/live'
import { describe, expect, it } from 'vitest'
import { sizeChanges, sizes } from './tables.ts'

const history = (more: object) => ({ rows: { step: [1, 4, 5, 9] }, about: more }) as unknown as LiveHistory
const some = history({
  sizes: [
    { from: 0, size: 16 },
    { from: 4, size: 32 },
  ],
})

describe('sizes', () => {
  it('has the size of each row, from the first step after a change on', () =>
    expect(sizes(some, 0.5)).toEqual([
      [0.5, 2, 2.5, 4.5],
      [16, 16, 32, 32],
    ]))

  it('has none for a run without sizes, or of which no start is known', () => {
    expect(sizes(history({}), 1)[1]).toEqual([null, null, null, null])
    expect(sizes({ ...some, about: null }, 1)[1]).toEqual([null, null, null, null])
  })
})

describe('sizeChanges', () => {
  it('marks where a size begins, but the first', () => {
    expect(sizeChanges(some, 0.5)).toEqual([{ x: 2, label: '32 px' }])
    expect(sizeChanges(history({}), 1)).toEqual([])
  })
})
