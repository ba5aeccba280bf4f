import { build } from 'esbuild'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { tensorflowIsSetUp } from './libtensorflow.ts'

const root = path.resolve(import.meta.dirname, '../../..')
// Below the root, so that the npm packages are found, as from a built program.
const program = path.join(root, 'dist/test/tfjs-processes.mjs')
const run = (...args: string[]) => promisify(execFile)(process.execPath, args)
const reason = 'convoy setup tensorflow was not run'

describe('a bundled program that uses TensorFlow.js', () => {
  beforeAll(async () => {
    await build({
      entryPoints: [path.join(import.meta.dirname, '../test/processes.fixture.ts')],
      outfile: program,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      external: ['@tensorflow/*', 'koffi', 'ml-matrix', 'sharp', 'tar', 'zod'],
    })
  })

  it.for(['cpu', 'wasm', 'tensorflow'])(
    'computes the same bits on %s in every process and thread, and is silent',
    async (backend, { skip }) => {
      skip(backend === 'tensorflow' && !tensorflowIsSetUp(), reason)
      const outputs = await Promise.all([1, 2].map(() => run(program, backend)))
      const hashes = outputs.flatMap(({ stdout }) => stdout.trim().split('\n'))
      expect(hashes).toHaveLength(6)
      expect(new Set(hashes).size).toBe(1)
      expect(hashes[0]).toMatch(/^[0-9a-f]{64}$/)
      expect(outputs.map(({ stderr }) => stderr)).toEqual(['', ''])
    },
  )

  it('takes no more memory after 2,000 steps on libtensorflow than after 500', async ({ skip }) => {
    skip(!tensorflowIsSetUp(), reason)
    const { stdout } = await run('--expose-gc', program, 'tensorflow', '2000')
    const [early, , , late] = stdout.split('\n').map(Number)
    // One gradient kept a step would be 130 MB.
    expect(late - early).toBeLessThan(30e6)
  }, 400_000)
})
