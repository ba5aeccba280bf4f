import { FileServer } from '@convoy/download/server'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { create } from 'tar'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { dawnFolder, dawnPlatform } from './dawn.ts'
import { setUpWebgpu } from './webgpu-setup.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-webgpu-'))
  return () => rmSync(folder, { recursive: true })
})

describe('#setUpWebgpu', () => {
  /** The package, as npm's registry has it. */
  let bytes: Buffer
  const server = new FileServer(() => bytes)
  const { asked } = server
  let environment: NodeJS.ProcessEnv
  beforeAll(async () => {
    const source = mkdtempSync(path.join(tmpdir(), 'convoy-package-'))
    for (const name of [
      'package/dist/other-x64/dawn.node',
      `package/dist/${dawnPlatform()}/dawn.node`,
      'package/index.js',
    ]) {
      mkdirSync(path.dirname(path.join(source, name)), { recursive: true })
      writeFileSync(path.join(source, name), name)
    }
    await create({ gzip: true, cwd: source, file: path.join(source, 'webgpu.tgz') }, ['package'])
    bytes = readFileSync(path.join(source, 'webgpu.tgz'))
    rmSync(source, { recursive: true })
    environment = { npm_config_registry: `${await server.listen()}/npm/` }
  })
  afterAll(() => server.close())
  beforeEach(() => {
    server.cut = Infinity
    asked.length = 0
  })
  const setUp = (sha256 = createHash('sha256').update(bytes).digest('hex')) =>
    setUpWebgpu({
      progress: () => {},
      timeout: 5_000,
      environment: { ...environment, CONVOY_CACHE: folder },
      archive: { name: 'webgpu', version: '0.6.2', sha256 },
    })

  it("fetches the package from npm's registry once, and keeps this platform's library only", async () => {
    expect(await setUp()).toEqual({ folder: dawnFolder({ CONVOY_CACHE: folder }), already: false })
    expect(asked).toEqual(['/npm/webgpu/-/webgpu-0.6.2.tgz'])
    const home = dawnFolder({ CONVOY_CACHE: folder })
    expect(readdirSync(home)).toEqual(['dist'])
    expect(readdirSync(path.join(home, 'dist'))).toEqual([dawnPlatform()])
    expect(readFileSync(path.join(home, 'dist', dawnPlatform(), 'dawn.node'), 'utf8')).toMatch(/dawn\.node$/)
    expect(readdirSync(path.dirname(home)).filter((name) => name !== path.basename(home))).toEqual([])
    expect(await setUp()).toMatchObject({ already: true })
    expect(asked).toHaveLength(1)
  })

  it('goes on where a broken fetch stopped', async () => {
    server.cut = 100
    await expect(setUp()).rejects.toMatchObject({ code: 'E_SETUP' })
    server.cut = Infinity
    expect(await setUp()).toMatchObject({ already: false })
    expect(asked[1]).toMatch(/ bytes=\d+-$/)
  })

  it('refuses what is not the package that is pinned', async () => {
    await expect(setUp('0'.repeat(64))).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringMatching(/has sha256 \w{64} instead of 0{64}/) as string,
    })
    expect(existsSync(dawnFolder({ CONVOY_CACHE: folder }))).toBe(false)
  })
})
