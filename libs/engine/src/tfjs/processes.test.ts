import { build } from 'esbuild'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'

const root = path.resolve(import.meta.dirname, '../../../..')
// Below the root, so that the npm packages are found, as from a built program.
const program = path.join(root, 'dist/test/tfjs-processes.mjs')

describe('a bundled program that uses TensorFlow.js', () => {
  beforeAll(async () => {
    await build({
      entryPoints: [path.join(import.meta.dirname, 'processes.fixture.ts')],
      outfile: program,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      external: ['@tensorflow/*', 'zod'],
    })
  })

  it.each(['cpu', 'wasm'])(
    'computes the same bits on %s in every process and thread, and is silent',
    async (backend) => {
      const runs = [1, 2].map(() => promisify(execFile)(process.execPath, [program, backend]))
      const outputs = await Promise.all(runs)
      const hashes = outputs.flatMap(({ stdout }) => stdout.trim().split('\n'))
      expect(hashes).toHaveLength(6)
      expect(new Set(hashes).size).toBe(1)
      expect(hashes[0]).toMatch(/^[0-9a-f]{64}$/)
      expect(outputs.map(({ stderr }) => stderr)).toEqual(['', ''])
    },
  )
})
