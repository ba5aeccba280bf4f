import { build } from 'esbuild'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { beforeAll, describe, expect, it } from 'vitest'
import { noVulkan } from '../test/vulkan.ts'
import { tensorflowIsSetUp } from './libtensorflow.ts'

const root = path.resolve(import.meta.dirname, '../../..')
// Below the root, so that the npm packages are found, as from a built program.
const program = path.join(root, 'dist/test/tfjs-processes.mjs')
const run = (...args: string[]) => promisify(execFile)(process.execPath, args)
const reasons: Record<string, string | undefined> = {
  tensorflow: tensorflowIsSetUp() ? undefined : 'convoy setup tensorflow was not run',
  webgpu: noVulkan,
}

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

  it.for(['cpu', 'wasm', 'tensorflow', 'webgpu'])(
    'computes the same bits on %s in every process and thread, and is silent',
    { timeout: 900_000 },
    async (backend, { skip }) => {
      skip(reasons[backend] !== undefined, reasons[backend])
      const outputs = await Promise.all([1, 2, 3].map(() => run(program, backend)))
      const hashes = outputs.flatMap(({ stdout }) => stdout.trim().split('\n'))
      expect(hashes).toHaveLength(backend === 'webgpu' ? 3 : 9)
      expect(new Set(hashes).size).toBe(1)
      expect(hashes[0]).toMatch(/^[0-9a-f]{64}$/)
      expect(outputs.map(({ stderr }) => stderr)).toEqual(['', '', ''])
    },
  )

  // On a software device 2,000 take longer than all other tests; docs/guides/gpu.md says what they came to.
  it.for([
    ['tensorflow', '2000'],
    ['webgpu', '160'],
  ] as const)(
    'takes no more memory on %s after %s steps than after a quarter of them',
    { timeout: 1_200_000 },
    async ([backend, steps], { skip }) => {
      skip(reasons[backend] !== undefined, reasons[backend])
      const { stdout } = await run('--expose-gc', program, backend, steps)
      const [early, , , late] = stdout.split('\n').map(Number)
      // One gradient kept a step would be 130 MB, of the small network on WebGPU 65.
      expect(late - early).toBeLessThan(30e6)
    },
  )
})
