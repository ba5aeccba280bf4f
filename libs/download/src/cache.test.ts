import { chmodSync, mkdirSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { cacheDirectory } from './cache.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'convoy-home-'))
afterAll(() => rmSync(folder, { recursive: true }))

describe('cacheDirectory', () => {
  it('is CONVOY_CACHE, else below XDG_CACHE_HOME, else below HOME', () => {
    const HOME = folder
    const names = { CONVOY_CACHE: '/a', XDG_CACHE_HOME: '/b', HOME }
    expect(cacheDirectory(names)).toBe('/a')
    expect(cacheDirectory({ ...names, CONVOY_CACHE: '' })).toBe('/b/convoy')
    expect(cacheDirectory({ HOME })).toBe(path.join(HOME, '.cache', 'convoy'))
  })

  const root = process.getuid?.() === 0
  it.skipIf(root || process.platform === 'win32')(
    'is a folder of this user alone where the home cannot be written to (skipped as root, who can)',
    () => {
      const home = path.join(folder, 'sealed')
      mkdirSync(home)
      chmodSync(home, 0o500)
      const told: string[] = []
      const found = cacheDirectory({ HOME: home }, (text) => told.push(text))
      expect(path.dirname(found)).toBe(tmpdir())
      expect(statSync(found).mode & 0o777).toBe(0o700)
      expect(cacheDirectory({ HOME: home }, (text) => told.push(text))).toBe(found)
      expect(told).toEqual([expect.stringMatching(/sealed cannot be written to: .*CONVOY_CACHE/)])
    },
  )
})
