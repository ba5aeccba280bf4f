import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { FileServer } from '../test/server.ts'
import { fetchWheel, pipIndex, type Wheel } from './wheel.ts'

const bytes = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * i) % 251))
const wheel = {
  project: 'tensorflow-cpu',
  file: 'tensorflow_cpu-2.20.0-cp312-cp312-manylinux_2_17_x86_64.whl',
  sha256: createHash('sha256').update(bytes).digest('hex'),
} as const

let folder: string
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-wheel-'))
  return () => rmSync(folder, { recursive: true })
})

describe('#fetchWheel', () => {
  /** What the next answers are like. */
  let form: 'json' | 'html' | 'other'
  const secrets: (string | undefined)[] = []
  const server = new FileServer((address, { headers }) => {
    secrets.push(headers.authorization)
    if (address !== '/simple/tensorflow-cpu/') return bytes
    const url = `../../files/${form === 'other' ? 'another.whl' : wheel.file}`
    return form === 'html'
      ? `<a href="${url}#sha256=${wheel.sha256}">${wheel.file}</a>`
      : JSON.stringify({ files: [{ filename: wheel.file, url }] })
  })
  const { asked } = server
  let environment: NodeJS.ProcessEnv
  beforeAll(async () => {
    environment = { PIP_INDEX_URL: `${await server.listen()}/simple/` }
  })
  afterAll(() => server.close())
  beforeEach(() => {
    form = 'json'
    server.cut = Infinity
    asked.length = 0
  })
  const fetchIt = (which: Wheel = wheel, more: NodeJS.ProcessEnv = {}) =>
    fetchWheel(which, folder, {
      progress: () => {},
      environment: { ...environment, ...more },
      timeout: 5_000,
      room: '1 MB',
    })

  it.each(['json', 'html'] as const)('finds it in an index in %s and gives its file', async (which) => {
    form = which
    expect(readFileSync(await fetchIt())).toEqual(bytes)
  })

  it('goes on where a broken fetch stopped', async () => {
    server.cut = 60_000
    await expect(fetchIt()).rejects.toMatchObject({ code: 'E_SETUP' })
    const had = readFileSync(path.join(folder, `${wheel.file}.part`)).length
    expect(had).toBeGreaterThan(0)
    server.cut = Infinity
    expect(readFileSync(await fetchIt())).toEqual(bytes)
    expect(asked).toEqual([`/files/${wheel.file}`, `/files/${wheel.file} bytes=${had}-`])
  })

  it('fetches once, though two ask at once', async () => {
    expect(await Promise.all([fetchIt(), fetchIt()])).toHaveLength(2)
    expect(asked).toHaveLength(1)
    expect(readdirSync(folder)).toEqual([wheel.file])
  })

  it('takes a file that lies there already, if it is the right one, and removes none that it did not fetch', async () => {
    const there = path.join(folder, wheel.file)
    writeFileSync(there, bytes)
    await fetchIt()
    writeFileSync(there, 'another')
    await expect(fetchIt()).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringMatching(/\.whl has sha256 \w{64} instead of/) as string,
      remedy: expect.stringContaining('Remove it') as string,
    })
    expect(readFileSync(there, 'utf8')).toBe('another')
    expect(asked).toEqual([])
  })

  it('refuses and removes what has another checksum', async () => {
    const other = { ...wheel, sha256: '0'.repeat(64) }
    await expect(fetchIt(other)).rejects.toMatchObject({
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

  it('shows a mirror its password, and no one else', async () => {
    const mirror = new URL(environment['PIP_INDEX_URL']!)
    mirror.username = 'me'
    mirror.password = 'p%40ss'
    secrets.length = 0
    const opened = { PIP_INDEX_URL: mirror.href }
    await fetchIt(wheel, opened)
    const basic = `Basic ${Buffer.from('me:p@ss').toString('base64')}`
    expect(secrets).toEqual([basic, basic])
    form = 'other'
    rmSync(path.join(folder, wheel.file))
    await expect(fetchIt(wheel, opened)).rejects.toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('p@ss') as string }),
    )
  })

  it('fetches nothing while offline', async () => {
    await expect(fetchIt(wheel, { CONVOY_OFFLINE: '1' })).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringContaining('offline') as string,
    })
    expect(asked).toEqual([])
  })
})

describe('#pipIndex', () => {
  const write = (name: string, text: string) => {
    const file = path.join(folder, name)
    mkdirSync(path.dirname(file), { recursive: true })
    writeFileSync(file, text)
    return file
  }

  it('takes the variable first, then the configuration of pip, then PyPI', () => {
    write('pip/pip.conf', '# ours\n[global]\ntimeout = 60\nindex-url = https://mirror.example/simple/\n')
    const environment = { XDG_CONFIG_HOME: folder, HOME: folder }
    expect(pipIndex({ ...environment, PIP_INDEX_URL: 'https://asked.example/simple/' })).toBe(
      'https://asked.example/simple',
    )
    expect(pipIndex(environment)).toBe('https://mirror.example/simple')
  })

  it('takes the section of downloads before the global one, and a named file before all', () => {
    const file = write(
      'mine.conf',
      '[global]\r\nindex_url: https://a.example\r\n[download]\r\nindex-url=https://b.example\r\n',
    )
    write('pip/pip.conf', '[global]\nindex-url = https://c.example\n')
    expect(pipIndex({ XDG_CONFIG_HOME: folder, HOME: folder, PIP_CONFIG_FILE: file })).toBe(
      'https://b.example',
    )
  })
})
