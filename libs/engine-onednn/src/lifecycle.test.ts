import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { beforeAll, describe, expect, it } from 'vitest'
import { onednnStatus } from './library.ts'

const root = path.resolve(import.meta.dirname, '../../..')
const program = path.join(root, 'dist/test/onednn-lifecycle.mjs')
const status = onednnStatus()

/** Runs the fixture; gives the hashes that it printed. Rejects where it crashed or exited with another code than 0. */
async function run(
  threads: number,
  precision: string,
  ending: string,
  environment: Record<string, string> = {},
): Promise<string[]> {
  const env = { ...process.env, ...environment }
  const { stdout } = await promisify(execFile)(process.execPath, [program, `${threads}`, precision, ending], {
    env,
  })
  return stdout.trim().split('\n')
}

describe.skipIf(!status.found)('a process that uses oneDNN (skipped where it is not installed)', () => {
  beforeAll(async () => {
    await build({
      entryPoints: [path.join(import.meta.dirname, '../test/lifecycle.fixture.ts')],
      outfile: program,
      bundle: true,
      format: 'esm',
      platform: 'node',
      target: 'node20',
      external: ['koffi', 'zod'],
    })
  })

  for (const threads of [1, 2, 4]) {
    for (const ending of ['return', 'dispose', 'exit', 'terminate', 'interrupt']) {
      it(`ends cleanly with ${threads} threads by ${ending}, 5 times`, async () => {
        for (let round = 0; round < 5; round++) await run(threads, 'auto', ending)
      })
    }
  }

  for (const precision of status.found && status.bf16 ? ['float32', 'bf16'] : ['float32']) {
    it(`computes the same bits in ${precision} in every process and thread`, async () => {
      const hashes = [
        ...(await run(1, precision, 'return')),
        ...(await run(1, precision, 'dispose')),
        ...(await run(1, precision, 'terminate')),
      ]
      expect(hashes).toHaveLength(5)
      expect(new Set(hashes).size).toBe(1)
    })
  }

  it.skipIf(process.arch !== 'x64')(
    'refuses bf16 on a CPU without it, and does without by itself',
    async () => {
      // oneDNN takes the CPU for an older one.
      const older = { DNNL_MAX_CPU_ISA: 'AVX2' }
      await expect(run(1, 'bf16', 'return', older)).rejects.toThrow(/no bf16 instructions/)
      expect(await run(1, 'auto', 'return', older)).toEqual(await run(1, 'float32', 'return', older))
    },
  )
})
