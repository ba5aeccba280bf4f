import { buildSimulatedGpu, compilerFound, type SimulatedGpu } from '@convoy/engine-cudnn/simulated'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { root, scratch, type Line } from '../convoy.ts'
import { partNames, parts } from './parts.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** Runs `npm run gpu:proof` and gives its lines. */
function prove(cuda: string, name: string, ...args: string[]): { status: number | null; lines: Line[] } {
  const run = [
    'tools/run.mjs',
    'test/gpu/main.ts',
    '--json',
    '--rounds',
    '1',
    '--out',
    path.join(folder, name),
  ]
  const { CONVOY_DATA: _, ...environment } = process.env
  const { status, stdout } = spawnSync(process.execPath, [...run, ...args], {
    cwd: root,
    env: { ...environment, CONVOY_CUDA: cuda },
    encoding: 'utf8',
  })
  return {
    status,
    lines: stdout.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as Line])),
  }
}

describe('npm run gpu:proof', () => {
  it('takes less than 25 minutes by the limits of its parts', () => {
    expect(Object.values(parts).reduce((sum, { minutes }) => sum + minutes, 0)).toBeLessThan(25)
  })

  it(
    'leaves everything out where there is no GPU, says why, and has proven nothing',
    { timeout: 600_000 },
    () => {
      const { status, lines } = prove('/nowhere', 'none')
      expect(lines.slice(0, -1).map(({ part, status }) => [part, status])).toEqual(
        partNames.map((name) => [name, 'left out']),
      )
      for (const { why } of lines.slice(0, -1)) expect(why).toMatch(/NVIDIA|cuDNN|nowhere/)
      expect(lines.at(-1)).toMatchObject({
        event: 'summary',
        passed: 0,
        failed: 0,
        leftOut: partNames.length,
      })
      expect(status).toBe(1)
    },
  )

  describe.skipIf(!compilerFound)('on a simulated GPU (skipped where g++ is not installed)', () => {
    let gpu: SimulatedGpu
    beforeAll(() => {
      gpu = buildSimulatedGpu()
    }, 600_000)
    afterAll(() => gpu.remove())

    it('comes through every part, and again keeps what passed', { timeout: 1_500_000 }, () => {
      const { status, lines } = prove(gpu.folder, 'simulated')
      for (const line of lines.slice(0, -1)) {
        const { part, status, why } = line
        // NVIDIA's own tool may not be there.
        if (part === 'sanitizer')
          expect([status, why]).toEqual(['left out', 'compute-sanitizer is not installed'])
        else expect([part, status, why]).toEqual([part, 'passed', undefined])
      }
      expect(status).toBe(0)
      const again = prove(gpu.folder, 'simulated')
      expect(again.lines.filter(({ kept }) => kept === true)).toHaveLength(partNames.length - 1)
      const report = readFileSync(path.join(folder, 'simulated', 'report.md'), 'utf8')
      for (const name of partNames) expect(report).toContain(`| ${name} |`)
    })

    it('goes on with the rest where a part fails', { timeout: 600_000 }, () => {
      const { status, lines } = prove(
        gpu.folder,
        'failing',
        '--only',
        'engine,train,time',
        '--data',
        '/nowhere',
      )
      expect(lines.slice(0, -1).map(({ part, status }) => [part, status])).toEqual([
        ['engine', 'passed'],
        ['train', 'failed'],
        ['time', 'passed'],
      ])
      expect(lines[1]['why']).toMatch(/nowhere/)
      expect(status).toBe(1)
    })
  })
})
