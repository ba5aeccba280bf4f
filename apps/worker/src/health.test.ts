import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { keepHealthFile } from './health.ts'

describe('keepHealthFile', () => {
  let folder: string
  beforeEach(() => {
    vi.useFakeTimers()
    folder = mkdtempSync(path.join(tmpdir(), 'convoy-health-'))
  })
  afterEach(() => {
    vi.useRealTimers()
    rmSync(folder, { recursive: true })
  })

  it('says at once and then every 5 s whether the worker has joined, and leaves nothing behind', () => {
    const file = path.join(folder, 'health')
    let joined = false
    const end = keepHealthFile(file, () => joined)
    expect(readFileSync(file, 'utf8')).toBe('looking\n')
    joined = true
    writeFileSync(file, 'old')
    vi.advanceTimersByTime(5_000)
    expect(readFileSync(file, 'utf8')).toBe('joined\n')
    end()
    expect(() => readFileSync(file)).toThrow(/ENOENT/)
  })

  it('refuses a file that cannot be written', () => {
    expect(() => keepHealthFile(path.join(folder, 'no', 'place'), () => true)).toThrow(
      expect.objectContaining({ code: 'E_USAGE' }),
    )
  })
})
