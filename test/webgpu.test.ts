import { readCheckpoint } from '@convoy/coordinator'
import { differences, drawLeaf, referenceGradient } from '@convoy/engine'
import { noVulkan } from '@convoy/engine-tfjs/vulkan'
import { networkSpec } from '@convoy/weights'
import { build } from 'esbuild'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { chromium } from 'playwright-core'
import { afterAll, describe, expect, it } from 'vitest'
import { chromiumPath, flags, unless } from './browser/browser.ts'
import { Convoy, root, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const small = [
  ...[
    '--data',
    'synthetic',
    '--limit-train',
    '48',
    '--limit-test',
    '10',
    '--width',
    '0.125',
    '--image-size',
    '16',
  ],
  ...['--epochs', '1', '--batch-size', '16', '--micro-batch', '4', '--flip', '--shift', '2'],
  ...['--runs', folder, '--port', '0', '--json'],
]
const { CONVOY_CACHE, VK_ICD_FILENAMES } = process.env
const environment = { ...(CONVOY_CACHE === undefined ? {} : { CONVOY_CACHE }), VK_ICD_FILENAMES }
const train = (...args: string[]) => new Convoy(['train', ...small, ...args], environment)

describe('convoy train --engine webgpu', () => {
  it('gives the same bits with 1, 2 and 3 workers', { timeout: 1_800_000 }, async ({ skip }) => {
    skip(noVulkan !== undefined, noVulkan)
    const hashes: unknown[] = []
    for (const workers of ['1', '2', '3']) {
      const done = await train(
        '--engine',
        'webgpu',
        '--workers',
        workers,
        '--name',
        `webgpu-${workers}`,
      ).done()
      expect(done).toMatchObject({
        step: 3,
        mixed: false,
        numerics: { engine: 'webgpu', precision: 'float32' },
      })
      hashes.push(done['parametersSha256'])
    }
    expect(new Set(hashes).size).toBe(1)
  })

  it(
    'is not what auto takes where software computes it, and is refused with --gpu',
    { timeout: 900_000 },
    async ({ skip }) => {
      skip(noVulkan !== undefined, noVulkan)
      const doctor = new Convoy(['doctor', '--json'], environment)
      await doctor.ended
      const found = doctor.lines.filter(({ name }) => String(name).startsWith('WebGPU'))
      expect(found[0]).toMatchObject({ name: 'WebGPU 0', ok: true })
      skip(!String(found[0]['text']).includes('the CPU computes'), 'there is a GPU here')
      const auto = doctor.lines.find(({ name }) => name === 'auto takes')
      expect(auto?.['text']).not.toMatch(/WebGPU/)
      const run = train('--engine', 'webgpu', '--gpu', '--workers', '1')
      expect(await run.ended).toBe(1)
      expect(run.event('error')).toMatchObject({ code: 'E_ENGINE_GPU' })
    },
  )
})

describe.skipIf(!chromiumPath)(`the webgpu engine in a tab${unless}`, () => {
  it('computes a leaf of a recorded run', { timeout: 1_800_000 }, async ({ skip }) => {
    const run = train('--engine', 'tfjs-wasm', '--workers', '1', '--name', 'recorded')
    await run.done()
    const checkpoints = path.join(folder, 'recorded', 'checkpoints')
    const last = readdirSync(checkpoints).sort().at(-1)!
    const { parameters, network } = await readCheckpoint(path.join(checkpoints, last))
    const { model } = networkSpec.parse(network)
    const { batch, masks } = drawLeaf(model, 4, 1)
    const bundled = await build({
      entryPoints: [path.join(root, 'test/browser/webgpu.fixture.ts')],
      bundle: true,
      write: false,
      format: 'iife',
      platform: 'browser',
      target: 'es2022',
    })
    const browser = await chromium.launch({
      executablePath: chromiumPath!,
      args: [
        ...flags.filter((flag) => flag !== '--disable-gpu'),
        ...['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader', '--enable-features=Vulkan'],
      ],
    })
    try {
      const page = await browser.newPage()
      // WebGPU is there for pages from this machine only, or with TLS.
      await page.route('http://127.0.0.1/', (route) =>
        route.fulfill({ body: '<!doctype html>', contentType: 'text/html' }),
      )
      await page.goto('http://127.0.0.1/')
      const there =
        'navigator.gpu ? navigator.gpu.requestAdapter().then((adapter) => adapter !== null) : false'
      skip(!(await page.evaluate<boolean>(there)), 'this Chromium has no WebGPU')
      await page.addScriptTag({ content: bundled.outputFiles[0].text })
      const leaf = {
        model,
        parameters: [...parameters],
        images: [...batch.images],
        labels: [...batch.labels],
        masks: masks.values.map((mask) => [...mask]),
      }
      const computed = await page.evaluate<{ loss: number; correct: number; gradient: number[] }>(
        `compute(${JSON.stringify(leaf)})`,
      )
      const expected = referenceGradient(model, parameters, batch, masks)
      expect(differences(computed.gradient, expected.gradient).relative).toBeLessThan(1e-4)
      expect(computed.loss).toBeCloseTo(expected.loss, 3)
      expect(computed.correct).toBe(expected.correct)
    } finally {
      await browser.close()
    }
  })
})
