import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { makeFolder } from './folder.ts'

const scratch = mkdtempSync(path.join(tmpdir(), 'convoy-folder-'))
afterAll(() => rmSync(scratch, { recursive: true }))

describe('#makeFolder', () => {
  it('makes what is missing, once or by several at once', async () => {
    const folder = path.join(scratch, 'a', 'b', 'c')
    await Promise.all([makeFolder(folder), makeFolder(folder), makeFolder(path.join(folder, 'd'))])
    await makeFolder(folder)
    expect(statSync(path.join(folder, 'd')).isDirectory()).toBe(true)
  })

  it('refuses what lies below a file', async () => {
    const file = path.join(scratch, 'file')
    writeFileSync(file, '')
    await expect(makeFolder(file)).rejects.toMatchObject({ code: 'EEXIST' })
    await expect(makeFolder(path.join(file, 'a'))).rejects.toMatchObject({ code: 'ENOTDIR' })
  })

  it.skipIf(!existsSync('/proc/self'))('ends below /proc (skipped where there is none)', async () => {
    await expect(makeFolder('/proc/convoy/cache')).rejects.toMatchObject({ code: 'ENOENT' })
  })
})
