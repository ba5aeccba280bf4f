import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { alone } from './lock.ts'

it('lets one after the other, also after one that failed', async () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'convoy-lock-'))
  let inside = 0
  let most = 0
  let waited = 0
  const act = async () => {
    most = Math.max(most, ++inside)
    await new Promise((resolve) => setTimeout(resolve, 50))
    inside--
    throw new Error('failed')
  }
  const all = await Promise.allSettled([1, 2, 3].map(() => alone(folder, () => waited++, act)))
  expect(all.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'rejected'])
  expect(most).toBe(1)
  expect(waited).toBeGreaterThan(0)
  rmSync(folder, { recursive: true })
})
