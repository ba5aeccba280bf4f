import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Convoy, root, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** A user without a name, as containers have it. */
const USER = 54_321
const may = process.getuid?.() === 0 && spawnSync('setpriv', ['--version']).status === 0

describe.skipIf(!may)('a user without a home (skipped: only root can become one, with setpriv)', () => {
  const images = path.join(folder, 'images')
  beforeAll(async () => {
    chmodSync(folder, 0o755)
    for (const name of ['train/a', 'train/b', 'test/a', 'test/b']) {
      mkdirSync(path.join(images, name), { recursive: true })
      const background = name.endsWith('a') ? 'red' : 'blue'
      const create = { width: 8, height: 8, channels: 3 as const, background }
      await sharp({ create }).toFile(path.join(images, name, '0.png'))
    }
    execFileSync(process.execPath, [path.join(root, 'tools', 'launch.mjs'), '--version'])
  })
  afterAll(() => rmSync(`/tmp/convoy-${USER}`, { recursive: true, force: true }))

  /** What `convoy data info` says to that user. */
  function info(source: string, environment: NodeJS.ProcessEnv): { text: string; status: number | null } {
    const convoy = [process.execPath, path.join(root, 'tools', 'launch.mjs'), 'data', 'info', source]
    const user = ['--reuid', String(USER), '--regid', String(USER), '--clear-groups']
    const { PATH } = process.env
    const { stdout, stderr, status } = spawnSync('setpriv', [...user, ...convoy], {
      encoding: 'utf8',
      env: { PATH, ...environment },
    })
    return { text: stdout + stderr, status }
  }

  it.each([
    ['none', {}, /there is no home folder: .*\/tmp\/convoy-54321; CONVOY_CACHE/],
    ['/', { HOME: '/' }, /\/ cannot be written to: .*\/tmp\/convoy-54321/],
  ])('whose home is %s keeps things among the temporary files, and is told', (_, environment, message) => {
    const { text, status } = info(images, environment)
    expect(text).toMatch(message)
    expect(text).toMatch(/2 to train/)
    expect(status).toBe(0)
  })

  it.each([images, 'cifar10'])('is told by name where CONVOY_CACHE cannot be written to: %s', (source) => {
    const sealed = path.join(folder, 'sealed', 'cache')
    mkdirSync(path.dirname(sealed), { recursive: true })
    const { text, status } = info(source, { CONVOY_CACHE: sealed })
    expect(text).toContain(sealed)
    expect(text).not.toMatch(/E_INTERNAL/)
    expect(status).toBe(source === images ? 0 : 1)
    if (source !== images) expect(text).toMatch(/E_DATA_DOWNLOAD: .*cannot be written.*\n.*CONVOY_CACHE/)
  })
})

const small = path.join(folder, 'small')
const mounted = () => {
  mkdirSync(small, { recursive: true })
  return spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', small]).status === 0
}

describe.skipIf(process.getuid?.() !== 0 || !mounted())(
  'a cache that becomes full (skipped: only root can mount a small disk)',
  () => {
    afterAll(() => spawnSync('umount', [small]))

    it('is told, with what to do, and what came is kept', async () => {
      const server = createServer((_, answer) => {
        answer.writeHead(200, { 'content-length': 3 << 20 })
        answer.end(Buffer.alloc(3 << 20))
      })
      await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
      const { port } = server.address() as AddressInfo
      const run = new Convoy(['data', 'info', 'cifar10'], {
        CONVOY_CACHE: small,
        CONVOY_CIFAR10_URL: `http://127.0.0.1:${port}/cifar.tar.gz`,
      })
      expect(await run.ended).toBe(1)
      expect(run.text).toMatch(/E_DATA_DOWNLOAD: .*cannot be written to .*ENOSPC.*\n.*CONVOY_CACHE/)
      server.close()
    })
  },
)
