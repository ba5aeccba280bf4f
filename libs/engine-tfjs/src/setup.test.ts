import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { fetchWheel, setUpTensorflow } from './setup.ts'

const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * i) % 251))
const wheel = {
  project: 'tensorflow-cpu',
  file: 'tensorflow_cpu-2.20.0-cp312-cp312-manylinux_2_17_x86_64.whl',
  sha256: createHash('sha256').update(bytes).digest('hex'),
} as const

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-setup-'))
  return () => rmSync(folder, { recursive: true })
})

describe('#fetchWheel', () => {
  /** What the next answers are like. */
  let form: 'json' | 'html' | 'other'
  let breakAt: number
  const ranges: (string | undefined)[] = []
  const server = createServer((request, response) => {
    if (request.url === '/simple/tensorflow-cpu/') {
      const url = `../../files/${form === 'other' ? 'another.whl' : wheel.file}`
      const page =
        form === 'html'
          ? `<a href="${url}#sha256=${wheel.sha256}">${wheel.file}</a>`
          : JSON.stringify({ files: [{ filename: wheel.file, url }] })
      return response.end(page)
    }
    const { range } = request.headers
    ranges.push(range)
    const from = Number(/\d+/.exec(range ?? '0')![0])
    response.writeHead(range ? 206 : 200, { 'content-length': bytes.length - from })
    response.write(bytes.subarray(from, breakAt), () => {
      if (breakAt < bytes.length) setTimeout(() => response.destroy(), 100)
      else response.end()
    })
  })
  let environment: NodeJS.ProcessEnv
  beforeAll(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as AddressInfo
    environment = { PIP_INDEX_URL: `http://127.0.0.1:${port}/simple/` }
  })
  afterAll(() => server.close())
  beforeEach(() => {
    form = 'json'
    breakAt = bytes.length
    ranges.length = 0
  })
  const fetchIt = () => fetchWheel(wheel, folder, () => {}, environment)

  it.each(['json', 'html'] as const)('finds it in an index in %s and gives its file', async (which) => {
    form = which
    expect(readFileSync(await fetchIt())).toEqual(bytes)
  })

  it('goes on where a broken fetch stopped', async () => {
    breakAt = 60_000
    await expect(fetchIt()).rejects.toMatchObject({ code: 'E_SETUP' })
    const had = readFileSync(path.join(folder, `${wheel.file}.part`)).length
    expect(had).toBeGreaterThan(0)
    breakAt = bytes.length
    expect(readFileSync(await fetchIt())).toEqual(bytes)
    expect(ranges).toEqual([undefined, `bytes=${had}-`])
  })

  it('takes a file that lies there already', async () => {
    writeFileSync(path.join(folder, wheel.file), bytes)
    await fetchIt()
    expect(ranges).toEqual([])
  })

  it('refuses and removes what has another checksum', async () => {
    const other = { ...wheel, sha256: '0'.repeat(64) }
    await expect(fetchWheel(other, folder, () => {}, environment)).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringContaining('instead of 000') as string,
    })
    expect(readdirSync(folder)).toEqual([])
  })

  it('says when the index does not list it', async () => {
    form = 'other'
    await expect(fetchIt()).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringContaining('does not list tensorflow_cpu') as string,
      remedy: expect.stringContaining('pip download') as string,
    })
  })
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
