import { expect, it } from 'vitest'
import type { RunEvent } from '../events.ts'
import { QuietLog } from './quiet.ts'

it('QuietLog tells the first of many, then how many more there were, and everything else', () => {
  const told: RunEvent[] = []
  const log = new QuietLog((event) => told.push(event))
  const refused: RunEvent = { event: 'refused', worker: 'a', code: 'E_MESSAGE', message: '' }
  const checkpoint: RunEvent = { event: 'checkpoint', step: 1, path: '' }
  for (let i = 0; i < 5_000; i++) log.hear(refused, 0)
  for (let i = 0; i < 5_000; i++) log.hear(checkpoint, 0)
  expect(told.filter(({ event }) => event === 'checkpoint')).toHaveLength(5_000)
  const count = told.filter(({ event }) => event === 'refused').length
  expect(count).toBeGreaterThan(0)
  expect(count).toBeLessThan(5_000)
  log.hear(checkpoint, 20_000)
  const muted = told.filter((event) => event.event === 'muted')
  expect(muted.every(({ of }) => of === 'refused')).toBe(true)
  expect(count + muted.reduce((sum, { count }) => sum + count, 0)).toBe(5_000)
  log.hear(refused, 20_000)
  expect(told.at(-1)).toBe(refused)
})
