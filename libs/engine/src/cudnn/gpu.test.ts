import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { build } from 'esbuild'
import { describe, expect, it } from 'vitest'
import { gpuCount } from './library.ts'
import { describeEngine } from './shared.tests.ts'
import { buildSimulatedGpu, compilerFound } from './simulated.ts'

const root = path.resolve(import.meta.dirname, '../../../..')
const gpus = gpuCount()

describe.skipIf(gpus === 0)('the cudnn engine on a GPU (skipped where there is none)', () => describeEngine())

describe.skipIf(gpus === 0 && !compilerFound)(
  'five processes (on a simulated GPU where there is no other; skipped without g++)',
  () => {
    let simulated: string | undefined
    it.each(['float32', 'tf32', 'bf16'])('compute the same bits in %s', async (precision) => {
      const program = path.join(root, 'dist/test/cudnn-hash.mjs')
      await build({
        entryPoints: [path.join(import.meta.dirname, 'hash.fixture.ts')],
        outfile: program,
        bundle: true,
        format: 'esm',
        platform: 'node',
        target: 'node20',
        external: ['koffi', 'zod'],
      })
      simulated ??= gpus > 0 ? '' : buildSimulatedGpu().folder
      const env = gpus > 0 ? process.env : { ...process.env, CONVOY_CUDA: simulated }
      const hashes = Array.from({ length: 5 }, () =>
        execFileSync(process.execPath, [program, precision], { env, encoding: 'utf8' }),
      )
      expect(hashes[0]).toMatch(/^[0-9a-f]{64}\n$/)
      expect(new Set(hashes).size).toBe(1)
    })
  },
)
