import { execFileSync } from 'node:child_process'
import path from 'node:path'
import { build } from 'esbuild'
import { afterAll, describe, expect, it } from 'vitest'
import { buildModel, modelNames } from '@convoy/model'
import { differences, drawLeaf, referenceGradient } from '@convoy/engine'
import { createCudnnEngine } from './engine.ts'
import { gpuCount } from './library.ts'
import { describeEngine } from '../test/shared.tests.ts'
import { buildSimulatedGpu, compilerFound, type SimulatedGpu } from '../test/simulated.ts'

const root = path.resolve(import.meta.dirname, '../../..')
const gpus = gpuCount()

describe.skipIf(gpus === 0)('the cudnn engine on a GPU (skipped where there is none)', () => {
  describeEngine()

  it('has the gradient of All-CNN-C at full size in float32', async () => {
    const engine = await createCudnnEngine({ precision: 'float32', device: 0 })
    const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 })
    const { parameters, batch, masks } = drawLeaf(model, 2, 2)
    const expected = referenceGradient(model, parameters, batch, masks)
    const compiled = await engine.compile(model, 2)
    const gradient = new Float32Array(parameters.length)
    compiled.load(parameters)
    compiled.gradient(batch, masks, gradient)
    expect(differences(gradient, expected.gradient).relative).toBeLessThan(1e-5)
    engine.dispose()
  })

  // One leaf is some hundredths off by ReLUs that rounding turns over. In a batch of 8 that averages out, as it does in training.
  it.each(modelNames)('is near and unbiased over a batch of %s in TF32 and bf16', async (name) => {
    const model = buildModel(name, { input: [32, 32, 3], classes: 10, width: 0.5 })
    const { parameters } = drawLeaf(model, 1, 10)
    const sum = async (precision: 'float32' | 'tf32' | 'bf16') => {
      const engine = await createCudnnEngine({ precision, device: 0 })
      const compiled = await engine.compile(model, 16)
      const gradient = new Float32Array(parameters.length)
      const total = new Float64Array(parameters.length)
      compiled.load(parameters)
      for (let leaf = 0; leaf < 8; leaf++) {
        const { batch, masks } = drawLeaf(model, 16, 10 + leaf)
        compiled.gradient(batch, masks, gradient)
        gradient.forEach((value, i) => (total[i] += value))
      }
      engine.dispose()
      return total
    }
    const exact = await sum('float32')
    for (const [precision, limit] of [
      ['tf32', 7e-3],
      ['bf16', 2e-2],
    ] as const) {
      const { relative, signed, absolute } = differences(await sum(precision), exact)
      expect(relative).toBeLessThan(limit)
      expect(Math.abs(signed)).toBeLessThan(absolute / 5)
    }
  })
})

describe.skipIf(gpus === 0 && !compilerFound)(
  'five processes (on a simulated GPU where there is no other; skipped without g++)',
  () => {
    let simulated: SimulatedGpu | undefined
    afterAll(() => simulated?.remove())
    it.each(['float32', 'tf32', 'bf16'])('compute the same bits in %s', async (precision) => {
      const program = path.join(root, 'dist/test/cudnn-hash.mjs')
      await build({
        entryPoints: [path.join(import.meta.dirname, '../test/hash.fixture.ts')],
        outfile: program,
        bundle: true,
        format: 'esm',
        platform: 'node',
        target: 'node20',
        external: ['koffi', 'zod'],
      })
      if (gpus === 0) simulated ??= buildSimulatedGpu()
      const env = simulated ? { ...process.env, CONVOY_CUDA: simulated.folder } : process.env
      const hashes = Array.from({ length: 5 }, () =>
        execFileSync(process.execPath, [program, precision], { env, encoding: 'utf8' }),
      )
      expect(hashes[0]).toMatch(/^[0-9a-f]{64}\n$/)
      expect(new Set(hashes).size).toBe(1)
    })
  },
)
