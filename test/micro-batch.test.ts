import { readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const train = (...args: string[]) =>
  new Convoy([
    ...['train', '--data', 'synthetic', '--limit-train', '200', '--limit-test', '20', '--width', '0.125'],
    ...['--batch-size', '64', '--engine', 'tfjs-wasm', '--workers', '2', '--name', 'auto', '--runs', folder],
    ...['--port', '0', '--json', '--micro-batch', 'auto', ...args],
  ])

describe('convoy train --micro-batch auto', () => {
  it('writes what it measured into the run, which goes on with it', async () => {
    expect(await train('--steps', '2').done()).toMatchObject({ step: 2 })
    const file = path.join(folder, 'auto', 'config.json')
    const { microBatch } = JSON.parse(readFileSync(file, 'utf8')) as { microBatch: number }
    // Two workers share batches of 64.
    expect([8, 16, 32]).toContain(microBatch)
    expect(await train('--steps', '4').done()).toMatchObject({ step: 4 })
  })
})
