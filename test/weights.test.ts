import { readCheckpoint } from '@convoy/coordinator'
import { writeWeights, type Network } from '@convoy/weights'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Convoy, scratch, type Line } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const images = path.join(folder, 'images')
const at = (name: string) => path.join(folder, name)
const small = ['--data', 'synthetic', '--limit-train', '300', '--limit-test', '70']
const checkpoint = at('base/checkpoints/step-3.convoy')

/** Runs a command to its end; gives its lines. */
async function convoy(
  ...args: string[]
): Promise<{ code: number | string; lines: Line[]; last: Line; text: string }> {
  const run = new Convoy([...args, '--json'])
  const code = await run.ended
  return { code, lines: run.lines, last: run.lines.at(-1)!, text: run.text }
}

beforeAll(async () => {
  const run = new Convoy([
    ...['train', ...small, '--width', '0.125', '--batch-size', '100', '--epochs', '1', '--workers', '1'],
    ...['--runs', folder, '--name', 'base', '--port', '0', '--json'],
  ])
  await run.done()
  const colours = { red: [200, 30, 30], green: [30, 200, 30], blue: [30, 30, 200] }
  for (const split of ['train', 'test']) {
    for (const [name, [r, g, b]] of Object.entries(colours)) {
      mkdirSync(path.join(images, split, name), { recursive: true })
      for (let i = 0; i < 4; i++) {
        const create = { width: 20 + i, height: 40, channels: 3 as const, background: { r: r + i, g, b } }
        const file = path.join(images, split, name, `${i}.${['png', 'jpg', 'webp', 'tiff'][i]}`)
        await sharp({ create }).toFile(file)
      }
    }
  }
  writeFileSync(at('broken.png'), 'no image')
})

describe('convoy weights', () => {
  it.each(['a.safetensors', 'a.json', 'a.h5', 'a.weights.h5'])(
    'keeps bits and logits through %s',
    async (name) => {
      const exported = await convoy('weights', 'export', '--checkpoint', checkpoint, '--out', at(name))
      const imported = await convoy('weights', 'import', at(name), '--out', at('back.safetensors'))
      expect(imported.last['parametersSha256']).toBe(exported.last['parametersSha256'])
      const logits = async (...source: string[]) => {
        const { last } = await convoy('evaluate', ...small, '--workers', '1', ...source)
        expect(last).toMatchObject({ event: 'evaluation', images: 70 })
        return last['logitsSha256']
      }
      expect(await logits('--weights', at('back.safetensors'))).toBe(await logits('--checkpoint', checkpoint))
    },
  )

  it('tells what a file holds, and what it is not', async () => {
    const { last } = await convoy('weights', 'info', checkpoint)
    expect(last).toMatchObject({ event: 'weights', model: 'all-cnn-c×0.125' })
    expect(last['layers']).toHaveLength(9)
    const broken = await convoy('weights', 'info', at('broken.png'))
    expect(broken).toMatchObject({ code: 1, last: { event: 'error', code: 'E_WEIGHTS_FILE' } })
    const other = await convoy('weights', 'info', checkpoint, '--model', 'all-cnn-b')
    const words = new Convoy(['weights', 'info', checkpoint, '--model', 'all-cnn-b'])
    await words.ended
    // What the file holds is told all the same.
    expect(words.text).toMatch(/conv9 +1×1×24×10, 10\n[^]*E_WEIGHTS_FIT/)
    expect(other).toMatchObject({ code: 1, last: { event: 'error', code: 'E_WEIGHTS_FIT' } })
  })
})

describe('weights that are not finite', () => {
  it('are refused wherever they would be used, with the layer', async () => {
    const { parameters, network } = await readCheckpoint(checkpoint)
    const broken = parameters.slice()
    broken[0] = NaN
    await writeWeights(at('nan.h5'), broken, network as Network)
    const uses = [
      ['predict', path.join(images, 'test', 'red'), '--weights', at('nan.h5')],
      ['evaluate', ...small, '--weights', at('nan.h5')],
      ['train', ...small, '--width', '0.125', '--init', at('nan.h5'), '--runs', folder, '--port', '0'],
    ]
    for (const use of uses) {
      const { code, last } = await convoy(...use)
      expect(code, use[0]).toBe(1)
      expect(last).toMatchObject({ event: 'error', code: 'E_WEIGHTS_FILE' })
      expect(last['message']).toMatch(/1 of 22042 weights .* NaN or infinite, the first in conv1\/kernel/)
    }
  })
})

describe('convoy evaluate', () => {
  it('writes the confusion matrix and the worst images, and reports flipping apart', async () => {
    const [svg, worst] = [at('confusion.svg'), at('worst.png')]
    const { last } = await convoy(
      ...['evaluate', ...small, '--checkpoint', checkpoint, '--workers', '1', '--flip'],
      ...['--svg', svg, '--worst', worst],
    )
    expect(last['flipped']).toMatchObject({ accuracy: expect.any(Number) as number })
    expect((last['recall'] as number[]).length).toBe(10)
    expect((await sharp(svg).metadata()).width).toBeGreaterThan(400)
    expect((await sharp(worst).metadata()).height).toBeGreaterThan(100)
  })

  it('refuses a data set of other classes', async () => {
    const { code, last } = await convoy('evaluate', '--data', images, '--checkpoint', checkpoint)
    expect(code).toBe(1)
    expect(last).toMatchObject({
      event: 'error',
      code: 'E_WEIGHTS_FIT',
      message: expect.stringMatching(/cannot tell .* of .*; its classes are /) as string,
    })
  })
})

describe('fine-tuning and convoy predict', () => {
  it('gives another number of classes a new last layer, and predicts images and folders of any format', async () => {
    const run = new Convoy([
      ...['train', '--data', images, '--init', checkpoint, '--freeze', 'all-but-2', '--width', '0.125'],
      ...['--epochs', '30', '--batch-size', '12', '--workers', '1', '--runs', folder, '--name', 'tuned'],
      ...['--evaluate-every', '0', '--learning-rate', '0.05', '--dropout', '0', '--port', '0', '--json'],
    ])
    const done = await run.done()
    const layers = run.event('initialised')!['layers'] as { layer: string; from: string | null }[]
    expect(layers.filter(({ from }) => from === null).map(({ layer }) => layer)).toEqual(['conv9'])
    expect(done['testAccuracy']).toBe(1)

    const red = path.join(images, 'test', 'red')
    const { code, lines } = await convoy('predict', red, '--runs', folder, '--run', 'tuned', '--top', '2')
    expect(code).toBe(0)
    expect(lines).toHaveLength(4)
    for (const line of lines) {
      const classes = line['classes'] as { label: string; probability: number }[]
      expect(classes).toHaveLength(2)
      expect(classes[0].label).toBe('red')
      expect(classes[0].probability).toBeGreaterThan(classes[1].probability)
    }
  })

  it('tells which image it cannot read, and predicts the others', async () => {
    const good = path.join(images, 'test', 'blue', '0.png')
    const { code, lines } = await convoy('predict', at('broken.png'), good, '--checkpoint', checkpoint)
    expect(code).toBe(1)
    expect(lines).toMatchObject([
      { event: 'error', code: 'E_DATA_IMAGE', file: at('broken.png') },
      { event: 'prediction', file: good },
    ])
    mkdirSync(at('empty'))
    writeFileSync(at('empty/notes.txt'), 'no image')
    const empty = await convoy('predict', at('empty'), '--checkpoint', checkpoint)
    expect(empty).toMatchObject({ code: 1, last: { code: 'E_DATA_NOT_FOUND' } })
    const nothing = await convoy('predict', at('nothing'), '--checkpoint', checkpoint)
    expect(nothing.last).toMatchObject({ event: 'error', code: 'E_DATA_NOT_FOUND' })
  })
})
