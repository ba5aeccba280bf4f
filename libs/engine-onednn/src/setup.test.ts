import { FileServer } from '@convoy/download/server'
import { zipSync } from 'fflate'
import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { canFetchOnednn, fetchedLibrary, setUpOnednn, type SetupOptions } from './setup.ts'

const zip = (files: Record<string, Buffer>) => Buffer.from(zipSync(files, { level: 0 }))

const library = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * i) % 251))
const packed = 'libgomp-0123abcd.so.1.0.0'
const archives = {
  'onednn_cpu_gomp-1.whl': zip({
    'a.data/data/lib/libdnnl.so': library,
    'a.data/data/lib/libdnnl.so.3': library,
  }),
  'pykdtree-1.whl': zip({
    'pykdtree/a.py': Buffer.from('1'),
    [`pykdtree.libs/${packed}`]: Buffer.from(`…\0${packed}\0…`),
  }),
}
type Name = keyof typeof archives
const wheelOf = (project: string, file: Name) => ({
  project,
  file,
  sha256: createHash('sha256').update(archives[file]).digest('hex'),
})
const wheels = [
  wheelOf('onednn-cpu-gomp', 'onednn_cpu_gomp-1.whl'),
  wheelOf('pykdtree', 'pykdtree-1.whl'),
] as const

describe.skipIf(!canFetchOnednn())('#setUpOnednn (skipped where PyPI has no oneDNN for the machine)', () => {
  const server = new FileServer((address) => {
    const links = Object.keys(archives).map((file) => `<a href="/${file}">${file}</a>`)
    return archives[path.basename(address) as Name] ?? links.join('\n')
  })
  const { asked } = server
  let index: string
  beforeAll(async () => {
    index = await server.listen()
  })
  afterAll(() => server.close())
  let folder: string
  let environment: NodeJS.ProcessEnv
  beforeEach(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'convoy-onednn-'))
    environment = { CONVOY_CACHE: folder, PIP_INDEX_URL: index }
    server.cut = Infinity
    asked.length = 0
    return () => rmSync(folder, { recursive: true })
  })
  const setUp = (more: Partial<SetupOptions> = {}) =>
    setUpOnednn({ progress: () => {}, environment, timeout: 5_000, wheels, ...more })

  it('lays library and OpenMP side by side, the latter by its own name, and leaves nothing else', async () => {
    const { folder: there, library: file } = await setUp()
    expect(readFileSync(file)).toEqual(library)
    expect(readFileSync(path.join(there, 'libgomp.so.1'), 'utf8')).toBe(
      `…\0${'libgomp.so.1'.padEnd(packed.length, '\0')}\0…`,
    )
    expect(statSync(file).mode & 0o777).toBe(0o755)
    expect(readdirSync(path.dirname(there))).toEqual([path.basename(there)])
    expect(fetchedLibrary(environment)).toBe(file)
  })

  it('fetches once, though several ask at once, and not again', async () => {
    const all = await Promise.all([setUp(), setUp(), setUp()])
    expect(all.map(({ already }) => already).sort()).toEqual([false, true, true])
    expect(asked.filter((name) => name.startsWith('/onednn_cpu_gomp'))).toHaveLength(1)
    asked.length = 0
    expect(await setUp()).toMatchObject({ already: true })
    expect(asked).toEqual([])
  })

  it('goes on where a fetch was cut', async () => {
    server.cut = 200_000
    await expect(setUp()).rejects.toMatchObject({ code: 'E_SETUP' })
    expect(fetchedLibrary(environment)).toBeUndefined()
    const part = path.join(folder, 'onednn', `${wheels[0].file}.part`)
    const had = statSync(part).size
    expect(had).toBeGreaterThan(0)
    server.cut = Infinity
    await setUp()
    expect(asked.filter((name) => name.startsWith('/onednn_cpu_gomp-1'))).toEqual([
      '/onednn_cpu_gomp-1.whl',
      `/onednn_cpu_gomp-1.whl bytes=${had}-`,
    ])
  })

  it('refuses what has another sum', async () => {
    const other = [{ ...wheels[0], sha256: '0'.repeat(64) }, wheels[1]] as const
    await expect(setUp({ wheels: other })).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringContaining('instead of 000') as string,
    })
    expect(fetchedLibrary(environment)).toBeUndefined()
    expect(readdirSync(path.join(folder, 'onednn'))).toEqual([wheels[1].file])
  })

  it('gives up soon where nothing answers', async () => {
    const silent = createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    environment['PIP_INDEX_URL'] = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`
    await expect(setUp({ timeout: 200 })).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringContaining('no answer within 0.2 s') as string,
    })
    silent.closeAllConnections()
    silent.close()
  })

  it('fetches nothing while offline, and says so', async () => {
    environment['CONVOY_OFFLINE'] = '1'
    await expect(setUp()).rejects.toMatchObject({ message: expect.stringContaining('offline') as string })
    expect(asked).toEqual([])
  })

  it('says where it cannot write', async () => {
    environment['CONVOY_CACHE'] = path.join(folder, 'file')
    writeFileSync(environment['CONVOY_CACHE'], '')
    await expect(setUp()).rejects.toMatchObject({
      code: 'E_SETUP',
      remedy: expect.stringContaining('CONVOY_CACHE') as string,
    })
  })

  it(
    'computes with what PyPI has (skipped where it is not in reach)',
    { timeout: 120_000 },
    async ({ skip }) => {
      const own = {
        CONVOY_CACHE: folder,
        ...(process.env['HTTPS_PROXY'] ? { HTTPS_PROXY: process.env['HTTPS_PROXY'] } : {}),
      }
      const done = await setUpOnednn({ progress: () => {}, environment: own, timeout: 5_000 }).catch(
        (error: Error) => error,
      )
      if (done instanceof Error) return skip(`PyPI is not in reach: ${done.message}`)
      expect(existsSync(done.library)).toBe(true)
      vi.stubEnv('CONVOY_ONEDNN', done.library)
      vi.stubEnv('CONVOY_CACHE', folder)
      vi.resetModules()
      const { loadOnednn } = await import('./library.ts')
      const loaded = loadOnednn()
      expect(loaded.version).toBe('3.2.0')
      loaded.setThreads(1)
      const maps = readFileSync('/proc/self/maps', 'utf8')
      expect(maps).toContain(path.join(done.folder, 'libgomp.so.1'))
      vi.unstubAllEnvs()
    },
  )
})
