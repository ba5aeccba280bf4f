import { afterAll, expect, it } from 'vitest'
import { scratch } from '../convoy.ts'
import { fuzz } from './fuzz.ts'

const { folder, remove } = scratch()
afterAll(remove)

it('a coordinator that malformed frames and strangers flood refuses them all, and trains to the same bits', async () => {
  const outcome = await fuzz({
    ...{ seed: 1, frames: 3_000, connections: 200, rate: 2_000, calm: 1, folder },
    run: ['--data', 'synthetic', '--limit-train', '600', '--limit-test', '20', '--width', '0.125'],
    worker: [],
    report: () => {},
  })
  expect(outcome.equal).toBe(true)
  expect(outcome.frames).toBeGreaterThanOrEqual(3_000)
  expect(outcome.connections).toBeGreaterThanOrEqual(200)
  expect(outcome.refused).toMatchObject({
    E_TOKEN: expect.any(Number) as number,
    E_FRAME: expect.any(Number) as number,
    E_MESSAGE: expect.any(Number) as number,
  })
}, 300_000)
