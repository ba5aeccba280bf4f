import { createEngine } from '@convoy/engines'
import { buildModel, symmetricPadding, type ModelSpec } from '@convoy/model'
import { matchWeights, readWeights } from '@convoy/weights'
import { execFile, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { Convoy, scratch } from '../convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)
const at = (name: string) => path.join(folder, name)

const find = "import importlib.util as u, sys; sys.exit(not (u.find_spec('torch') and u.find_spec('numpy')))"
/** The first Python of CONVOY_TORCH_PYTHON, or python3, that has PyTorch and NumPy. */
const python = (process.env['CONVOY_TORCH_PYTHON'] || 'python3')
  .split(path.delimiter)
  .find((name) => spawnSync(name, ['-c', find]).status === 0)

const COUNT = 100
const images = Float32Array.from({ length: COUNT * 32 * 32 * 3 }, (_, i) => Math.sin(i * i * 0.37) * 1.5)
const model = symmetricPadding(buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.125 }))

async function logitsOf(spec: ModelSpec, weights: Float32Array): Promise<Float32Array> {
  const engine = await createEngine({
    ...{ engine: 'auto', precision: 'float32', threads: 1, device: 0, gpu: false },
  })
  const compiled = await engine.compile(spec, COUNT)
  compiled.load(weights)
  const logits = new Float32Array(COUNT * spec.classes)
  await compiled.predict(images, COUNT, logits)
  engine.dispose()
  return logits
}

const furthest = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0)

describe('weights of PyTorch', () => {
  beforeAll(async () => {
    if (!python) return
    writeFileSync(at('images.bin'), images)
    const peer = path.join(import.meta.dirname, 'peer.py')
    const env = { ...process.env, OMP_NUM_THREADS: '1' }
    await promisify(execFile)(python, [peer, folder, at('images.bin')], { env })
    // Importing PyTorch alone takes a minute on a busy machine.
  }, 600_000)
  beforeEach(({ skip }) =>
    skip(!python, 'no Python here has torch and numpy (CONVOY_TORCH_PYTHON names one)'),
  )

  const kinds = { float32: 1e-5, float64: 1e-5, float16: 1e-2, bfloat16: 1e-2 }
  const files = ['plain', 'norm'].flatMap((net) =>
    Object.entries(kinds).flatMap(([kind, most]) =>
      ['pt', 'safetensors'].map((format) => [`${net}-${kind}.${format}`, net, most] as const),
    ),
  )
  it.each(files)('give the logits of PyTorch through %s', async (name, net, most) => {
    const { parameters } = matchWeights(await readWeights(at(name)), model)
    const logits = await logitsOf(model, parameters)
    const bytes = readFileSync(at(`${net}.logits`))
    const theirs = new Float32Array(bytes.buffer, bytes.byteOffset, COUNT * 10)
    // Logits that are all alike would say nothing.
    expect(Math.max(...theirs) - Math.min(...theirs)).toBeGreaterThan(0.1)
    expect(furthest(logits, theirs)).toBeLessThan(most)
  })

  it('are imported with the padding that PyTorch has, which goes along', async () => {
    const run = new Convoy([
      'weights',
      'import',
      at('norm-float32.pt'),
      '--out',
      at('in.safetensors'),
      '--json',
    ])
    expect(await run.ended).toBe(0)
    const sides = [
      [1, 1],
      [1, 1],
    ]
    expect(run.lines.at(-1)!['padding']).toEqual(
      model.layers.flatMap((layer) => ('stride' in layer ? [layer.stride[0] === 2 ? sides : 'same'] : [])),
    )
    expect((await readWeights(at('in.safetensors'))).network?.model.layers).toMatchObject(
      model.layers.map(({ kind }) => ({ kind })),
    )
  })

  it.each(['evil.pt', 'whole.pt'])(
    'are refused where %s would run code, and nothing is run',
    async (name) => {
      await expect(readWeights(at(name))).rejects.toMatchObject({
        code: 'E_WEIGHTS_FILE',
        message: expect.stringMatching(/would run (io\.open|torch\.nn)/) as string,
      })
      expect(existsSync(at('ran'))).toBe(false)
    },
  )
})
