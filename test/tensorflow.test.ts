import { tensorflowIsSetUp } from '@convoy/engine-tfjs'
import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const small = [
  ...['--data', 'synthetic', '--limit-train', '450', '--limit-test', '70', '--width', '0.125'],
  ...['--epochs', '2', '--batch-size', '100', '--micro-batch', '8', '--flip', '--shift', '2'],
  ...['--runs', folder, '--port', '0', '--json'],
]
const cache = process.env['CONVOY_CACHE']
const train = (...args: string[]) =>
  new Convoy(['train', ...small, ...args], cache === undefined ? {} : { CONVOY_CACHE: cache })

describe('convoy train --engine tfjs-tensorflow', () => {
  it('gives the same bits with 1, 2 and 3 workers', async ({ skip }) => {
    skip(!tensorflowIsSetUp(), 'convoy setup tensorflow was not run')
    const hashes: unknown[] = []
    for (const workers of ['1', '2', '3']) {
      const done = await train('--engine', 'tfjs-tensorflow', '--workers', workers).done()
      expect(done).toMatchObject({
        step: 10,
        mixed: false,
        numerics: { engine: 'tfjs-tensorflow', threads: 1 },
      })
      hashes.push(done['parametersSha256'])
    }
    expect(new Set(hashes).size).toBe(1)
    // Six processes load libtensorflow here; on a busy machine that alone takes a minute.
  }, 400_000)
})

describe('convoy train --gpu', () => {
  it.each(['onednn', 'tfjs-wasm'])('ends with the reason where %s would not use one', async (engine) => {
    const run = train('--engine', engine, '--gpu', '--workers', '1')
    expect(await run.ended).toBe(1)
    expect(run.event('error')).toMatchObject({ code: 'E_ENGINE_GPU' })
  })

  it('ends naming what was found and what is wanted where no GPU would be used', async ({ skip }) => {
    const run = train('--engine', 'tfjs', '--gpu', '--workers', '1')
    const code = await run.ended
    skip(code === 0, 'there is a GPU here, and it was used')
    expect(code).toBe(1)
    expect(run.event('error')).toMatchObject({
      code: 'E_ENGINE_GPU',
      message: expect.stringMatching(/Found .*; wanted CUDA/) as string,
    })
  })
})
