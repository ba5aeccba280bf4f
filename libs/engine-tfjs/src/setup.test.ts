import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { setUpTensorflow } from './setup.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-setup-'))
  return () => rmSync(folder, { recursive: true })
})

describe('#setUpTensorflow', () => {
  it('asks for a compiler before it fetches anything', async () => {
    const environment = { CONVOY_CACHE: folder, CXX: path.join(folder, 'no-such-compiler') }
    const setUp = setUpTensorflow({ gpu: false, from: 'pypi', progress: () => {}, environment })
    await expect(setUp).rejects.toMatchObject({
      code: 'E_SETUP',
      remedy: expect.stringContaining('apt-get install g++') as string,
    })
    expect(existsSync(path.join(folder, 'tensorflow'))).toBe(false)
  })
})
