import { loadDataset } from '@convoy/data'
import { buildModel, initialise, parameterLayout } from '@convoy/model'
import { encodeSafetensors, writeWeights, type Network } from '@convoy/weights'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { Browser, Page } from 'playwright-core'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from '../convoy.ts'
import { chromiumPath, findings, launch, openPage, pictures, unless } from './browser.ts'

const { folder, remove } = scratch()
afterAll(remove)
const at = (name: string) => path.join(folder, name)
const source = process.env['CONVOY_DATA'] ?? 'synthetic'

/** What TensorFlow.js is loaded as. */
const TENSORFLOW = /\/assets\/(network|tfjs)[^/]*\.(js|wasm)$/

/** Weights as they are drawn: they answer with some certainty already. */
function drawn(width: number): { network: Network; parameters: Float32Array } {
  const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width })
  const parameters = initialise(model, 'heUniform', 7)
  const preprocessing = { kind: 'gcn' as const, scale: 55 }
  const classes = Array.from({ length: 10 }, (_, i) => `number ${i}`)
  return { network: { model, classes, preprocessing }, parameters }
}

function write(name: string, { network, parameters }: ReturnType<typeof drawn>): void {
  writeFileSync(at(name), encodeSafetensors(parameterLayout(network.model), parameters, network))
}

/** Drops files on the page, or pastes them. */
async function give(page: Page, given: string | string[], how: 'drop' | 'paste' = 'drop'): Promise<void> {
  const files = [given].flat().map((file) => [path.basename(file), readFileSync(file).toString('base64')])
  const event =
    how === 'drop'
      ? "new DragEvent('drop', { dataTransfer: transfer, bubbles: true, cancelable: true })"
      : "new ClipboardEvent('paste', { clipboardData: transfer, bubbles: true })"
  await page.evaluate(`{
    const transfer = new DataTransfer()
    for (const [name, data] of ${JSON.stringify(files)})
      transfer.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name))
    document.querySelector('main > *').dispatchEvent(${event})
  }`)
}

/** What a canvas shows, RGBA bytes by place. */
async function pixelsOf(page: Page, label: string) {
  const address = await page.evaluate<string>(
    `document.querySelector('canvas[aria-label^="${label}"]').toDataURL()`,
  )
  const png = Buffer.from(address.slice(address.indexOf(',') + 1), 'base64')
  const { data, info } = await sharp(png).ensureAlpha().raw().toBuffer({ resolveWithObject: true })
  return { data, at: (y: number, x: number) => data.subarray(4 * (info.width * y + x)) }
}

type Probabilities = Record<string, number>

/** The probabilities that the page shows. */
async function shown(page: Page): Promise<Probabilities> {
  const buttons = `[...document.querySelectorAll('.bars button')]`
  const read = `${buttons}.map(({ dataset }) => [dataset.class, Number(dataset.probability)])`
  return Object.fromEntries(await page.evaluate<[string, number][]>(read))
}

/** Those of `convoy predict`, of each file. */
async function predicted(files: readonly string[], ...weights: string[]): Promise<Probabilities[]> {
  const run = new Convoy(['predict', ...files, ...weights, '--top', '10', '--json'])
  expect(await run.ended).toBe(0)
  return run.lines.map((line) => {
    const classes = line['classes'] as { label: string; probability: number }[]
    return Object.fromEntries(classes.map(({ label, probability }) => [label, probability]))
  })
}

function expectEqual(page: Probabilities, predict: Probabilities): void {
  expect(Object.keys(page)).toHaveLength(10)
  for (const [label, probability] of Object.entries(predict))
    expect(Math.abs(page[label] - probability), label).toBeLessThan(1e-3)
  // Ten equal probabilities would say nothing, nor would 1 and nine zeros.
  const largest = Math.max(...Object.values(predict))
  expect(largest).toBeGreaterThan(0.15)
  expect(largest).toBeLessThan(0.97)
}

/** A picture's values, from its table. */
async function values(page: Page, title: string): Promise<number[][]> {
  const figure = page.locator('figure').filter({ has: page.getByRole('heading', { name: title }) })
  if ((await figure.locator('details[open]').count()) === 0) await figure.locator('summary').click()
  await figure.locator('table').waitFor()
  const rows = await figure.locator('tr').allInnerTexts()
  return rows.map((row) => row.split('\t').map((text) => Number(text.replace('−', '-'))))
}

describe.skipIf(!chromiumPath)(`the explorer and the classifier${unless}`, () => {
  let browser: Browser
  let coordinator: Convoy
  let worker: Convoy
  let url: string
  /** The first test image, RGB bytes [32, 32, 3]. */
  let pixels: Uint8Array

  beforeAll(async () => {
    const dataset = await loadDataset(source, { limitTrain: 40, limitTest: 20 })
    pixels = (dataset.test.pixels as Uint8Array).slice(0, 32 * 32 * 3)
    const image = () => sharp(pixels, { raw: { width: 32, height: 32, channels: 3 } })
    await image().png().toFile(at('small.png'))
    await image().resize(300, 200, { fit: 'fill' }).jpeg().toFile(at('large.jpg'))
    write('full.safetensors', drawn(1))
    write('narrow.safetensors', drawn(0.125))
    const { network, parameters } = drawn(0.125)
    const { preprocessing: _, ...whitened } = network
    write('whitened.safetensors', { network: whitened, parameters })
    browser = await launch()
    // A step that changes next to nothing: its checkpoint is a run's newest weights.
    coordinator = new Convoy([
      ...['coordinator', '--data', source, '--limit-train', '40', '--limit-test', '20', '--batch-size', '20'],
      ...['--init', at('full.safetensors'), '--learning-rate', '1e-12', '--steps', '1', '--stay'],
      ...['--runs', folder, '--name', 'weighty', '--port', '0', '--json'],
    ])
    url = await coordinator.address('dashboard')
    worker = new Convoy(['worker', '--coordinator', await coordinator.address()])
    await coordinator.until((run) => run.event('done'))
  })
  afterAll(async () => {
    await browser?.close()
    for (const convoy of [worker, coordinator]) {
      convoy?.child.kill('SIGKILL')
      await convoy?.ended
    }
  })

  it('loads TensorFlow.js only for the classifier; the page without it stays under 300 KB', async () => {
    const { page } = await openPage(browser, 'about:blank')
    const requests: string[] = []
    let bytes = 0
    page.on('response', (response) => {
      requests.push(new URL(response.url()).pathname)
      bytes += Number(response.headers()['content-length'] ?? 0)
    })
    await page.goto(url)
    await page.getByRole('heading', { level: 1, name: 'weighty' }).waitFor()
    for (const name of ['Runs', 'Explore']) {
      await page.getByRole('link', { name }).click()
      await page.getByRole('link', { name }).and(page.locator('[aria-current]')).waitFor()
    }
    await page.waitForLoadState('networkidle')
    expect(requests.filter((one) => TENSORFLOW.test(one))).toEqual([])
    expect(requests.filter((one) => one.endsWith('.js'))).toHaveLength(1)
    expect(bytes).toBeLessThan(300_000)
    await page.getByRole('link', { name: 'Classify' }).click()
    await page.getByText('Now give it an image').waitFor()
    expect(requests.filter((one) => TENSORFLOW.test(one))).toHaveLength(2)
  })

  it('explores: the line detector on the 2×2 example, edited, pooled, by keyboard', async () => {
    const { page, errors } = await openPage(browser, `${url}#/explore`)
    const side = page.getByLabel('Pixels a side')
    const picture = page.getByLabel('Picture')
    await side.selectOption('2')
    await picture.selectOption('Flat patch')
    expect(await values(page, 'Output')).toEqual([[0]])
    await picture.selectOption('White above black')
    expect(await values(page, 'Output')).toEqual([[600]])
    const window = page.getByRole('region', { name: 'One window' })
    expect(await window.textContent()).toContain('1.5 × 200 + 1.5 × 200 − 1.5 × 0 − 1.5 × 0 = 600')

    await side.selectOption('4')
    await page.getByLabel('Padding').selectOption('same')
    await page.getByLabel('Pooling').selectOption('average')
    // The zeros of the padding stand after: their column halves the sum, their row takes the place of black.
    expect(await values(page, 'Output')).toEqual([
      [0, 0, 0, 0],
      [600, 600, 600, 300],
      [0, 0, 0, 0],
      [0, 0, 0, 0],
    ])
    expect(await values(page, 'Pooled')).toEqual([
      [300, 225],
      [0, 0],
    ])
    await page.getByLabel('Pool size').selectOption('4')
    await page.getByLabel('Pool stride').selectOption('4')
    expect(await values(page, 'Pooled')).toEqual([[131.25]])
    await page.getByLabel('Pool size').selectOption('2')
    await page.getByLabel('Pool stride').selectOption('2')
    const output = page.getByRole('img', { name: /^Output: 4×4, 0 to 600/ })
    await output.focus()
    await page.keyboard.press('Home')
    for (const key of ['ArrowDown', 'ArrowRight', 'ArrowRight', 'ArrowRight']) await page.keyboard.press(key)
    expect(await page.locator('[aria-live=polite]').allTextContents()).toContain('Row 2, column 4: 300')
    expect(await window.textContent()).toContain('(0 + 0 + 600 + 300) / 4 = 225')

    await page.getByLabel('Kernel, row 1, column 1').fill('-4')
    expect((await values(page, 'Output'))[1]).toEqual([-500, -500, -500, -800])
    await page.getByLabel(/^ReLU/).check()
    expect((await values(page, 'Output'))[1]).toEqual([0, 0, 0, 0])
    await page.getByLabel('Rows').selectOption('5')
    await page.getByLabel('Padding').selectOption('valid')
    await page.getByText('The kernel is larger than the image').waitFor()

    await page.getByLabel('Preset').selectOption('Horizontal line')
    const image = page.getByRole('img', { name: /^Image/ })
    const { width, height } = (await image.boundingBox())!
    await image.hover({ position: { x: 0.9 * width, y: 0.4 * height } })
    await page.getByText('Row 2, column 3 of the output').waitFor()
    expect(errors).toEqual([])
  })

  it('explores a real image, to the numbers computed by hand', async () => {
    const { page, errors } = await openPage(browser, `${url}#/explore`)
    await page.getByLabel('Own image').setInputFiles(at('small.png'))
    await page.getByRole('img', { name: /^Image: 32×32/ }).waitFor()
    const light = (y: number, x: number) => {
      const [red, green, blue] = pixels.subarray(3 * (32 * y + x))
      return Math.round(0.299 * red + 0.587 * green + 0.114 * blue)
    }
    const wanted = Array.from({ length: 31 }, (_, y) =>
      Array.from(
        { length: 31 },
        (_, x) => 1.5 * (light(y, x) + light(y, x + 1)) - 1.5 * (light(y + 1, x) + light(y + 1, x + 1)),
      ),
    )
    expect(await values(page, 'Output')).toEqual(wanted)
    for (const summary of await page.locator('details[open] summary').all()) await summary.click()

    await page.getByLabel('Pooling').selectOption('max')
    expect(await findings(page)).toEqual([])
    await page.emulateMedia({ colorScheme: 'dark' })
    expect(await findings(page)).toEqual([])
    await pictures(page, 'explore-image')
    await page.getByLabel('Picture').selectOption('Ring')
    await page.getByLabel('Pixels a side').selectOption('12')
    await pictures(page, 'explore')
    await page.setViewportSize({ width: 360, height: 700 })
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
    expect(errors).toEqual([])
  })

  it("classifies with the run's newest weights as `convoy predict` does, images of any size", async () => {
    const { page, errors } = await openPage(browser, `${url}#/classify`)
    const input = page.getByLabel(/^Image, or weights/)
    const files = ['small.png', 'large.jpg'].map(at)
    const wanted = await predicted(files, '--runs', folder, '--run', 'weighty')
    for (const [i, file] of files.entries()) {
      await input.setInputFiles(file)
      await page.getByRole('img', { name: path.basename(file) }).waitFor()
      expectEqual(await shown(page), wanted[i])
    }
    await page.getByText(/^all-cnn-c, step 1: 1,369,738 parameters/).waitFor()
    expect(await page.getByRole('img', { name: /^96 filters of 3×3/ }).count()).toBe(1)

    const layer = page.getByLabel('After')
    const names = await layer.locator('option').allTextContents()
    expect(names).toHaveLength(9 + 8 + 1)
    await layer.selectOption('conv3, ReLU (16×16×96)')
    await page.getByRole('img', { name: /^96 maps of 16×16/ }).waitFor()
    await layer.selectOption('global average (1×1×10)')
    await page.getByRole('img', { name: /^10 maps of 1×1/ }).waitFor()

    const saliency = async () => [...(await pixelsOf(page, 'The pixels that')).data]
    const first = await saliency()
    expect(new Set(first).size).toBeGreaterThan(50)
    await page.locator('.bars button').nth(1).press('Enter')
    await page.locator('.bars li:nth-child(2) [aria-pressed=true]').waitFor()
    expect(await saliency()).not.toEqual(first)

    await layer.selectOption('conv1, ReLU (32×32×96)')
    expect(await findings(page)).toEqual([])
    await page.emulateMedia({ colorScheme: 'dark' })
    expect(await findings(page)).toEqual([])
    await pictures(page, 'classify')
    await page.setViewportSize({ width: 360, height: 700 })
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360)
    expect(errors).toEqual([])
  })

  it('shows the filters and feature maps that its weights have', async () => {
    const { page } = await openPage(browser, `${url}#/classify`)
    await page.getByText('Now give it an image').waitFor()
    await give(page, at('narrow.safetensors'))
    await page.getByText(/^all-cnn-c×0.125: /).waitFor()
    await give(page, at('small.png'), 'paste')
    await page.getByRole('img', { name: 'small.png' }).waitFor()
    const [wanted] = await predicted([at('small.png')], '--weights', at('narrow.safetensors'))
    expectEqual(await shown(page), wanted)

    // Twelve filters in rows of five; each picture has a gap of one pixel around.
    const { parameters } = drawn(0.125)
    const weight = (filter: number, y: number, x: number, c: number) =>
      parameters[((y * 3 + x) * 3 + c) * 12 + filter]
    const all = Array.from({ length: 27 }, (_, i) =>
      weight(6, Math.floor(i / 9), Math.floor(i / 3) % 3, i % 3),
    )
    const [least, most] = [Math.min(...all), Math.max(...all)]
    // The seventh filter is the second of the second row: 3×3 weights, five times as large.
    const centre = (await pixelsOf(page, '12 filters of 3×3')).at(17 + 1 + 7, 17 + 1 + 7)
    for (const c of [0, 1, 2])
      expect(Math.abs(centre[c] - (255 * (weight(6, 1, 1, c) - least)) / (most - least))).toBeLessThan(2)

    // The seventh map of conv1, by hand: contrast normalised, padded with zeros.
    const bytes = [...pixels]
    const mean = bytes.reduce((a, b) => a + b) / bytes.length
    const norm = Math.sqrt(bytes.reduce((sum, value) => sum + (value - mean) ** 2, 0))
    const input = (y: number, x: number, c: number) =>
      y < 0 || y > 31 || x < 0 || x > 31 ? 0 : (55 / norm) * (bytes[(y * 32 + x) * 3 + c] - mean)
    const map = Array.from({ length: 1024 }, (_, i) => {
      let sum = 0
      for (let y = 0; y < 3; y++)
        for (let x = 0; x < 3; x++)
          for (let c = 0; c < 3; c++)
            sum += weight(6, y, x, c) * input(Math.floor(i / 32) + y - 1, (i % 32) + x - 1, c)
      return sum
    })
    const [low, high] = [Math.min(...map), Math.max(...map)]
    const maps = await pixelsOf(page, '12 maps of 32×32')
    for (const [y, x] of [
      [0, 0],
      [13, 20],
      [31, 31],
    ]) {
      const [grey] = maps.at(34 + 1 + y, 34 + 1 + x)
      expect(Math.abs(grey - (255 * (map[32 * y + x] - low)) / (high - low))).toBeLessThan(2)
    }
  })

  it('reads a model.json of TensorFlow.js that is dropped with its shards', async () => {
    const { network, parameters } = drawn(0.125)
    const files = await writeWeights(at('model.json'), parameters, network)
    const { page, errors } = await openPage(browser, `${url}#/classify`)
    await page.getByText('Now give it an image').waitFor()
    await give(page, files)
    await page.getByText(/^all-cnn-c×0.125: /).waitFor()
    await give(page, at('small.png'))
    await page.getByRole('img', { name: 'small.png' }).waitFor()
    const [wanted] = await predicted([at('small.png')], '--weights', at('model.json'))
    expectEqual(await shown(page), wanted)

    const alert = page.getByRole('alert')
    await give(page, at('model.json'))
    await alert
      .filter({ hasText: /^E_WEIGHTS_FILE: model.json: .*shard1of1.bin is not there; give/ })
      .waitFor()
    await give(
      page,
      files.find((file) => file.endsWith('.bin'))!,
    )
    await alert
      .filter({ hasText: /^E_WEIGHTS_FILE: .*\.bin\. Give it together with its model.json/ })
      .waitFor()
    expect(errors).toEqual([])
  })

  it('says what it cannot use, and what to do', async () => {
    const { page, errors } = await openPage(browser, `${url}#/classify`)
    await page.getByText('Now give it an image').waitFor()
    const alert = page.getByRole('alert')
    const told = async (name: string, text: RegExp) => {
      await give(page, at(name))
      await alert.filter({ hasText: text }).waitFor()
    }
    writeFileSync(at('keras.h5'), 'HDF')
    writeFileSync(at('broken.png'), 'no image')
    const checkpoint = readFileSync(at('weighty/checkpoints/step-1.convoy'))
    checkpoint[5_000_000] ^= 1
    writeFileSync(at('torn.convoy'), checkpoint)
    writeFileSync(at('cut.safetensors'), readFileSync(at('narrow.safetensors')).subarray(0, 9_000))
    await told('keras.h5', /^E_WEIGHTS_FILE: .*keras.h5.*weights import keras.h5 --data SOURCE/)
    await told('torn.convoy', /^E_WEIGHTS_FILE: torn.convoy: it is torn/)
    await told('cut.safetensors', /^E_WEIGHTS_FILE: cut.safetensors: .* is cut off/)
    await told('whitened.safetensors', /^E_USAGE: .*does not say how images are normalised; whitening/)
    // The weights of before are still there.
    await page.getByText(/^all-cnn-c, step 1/).waitFor()
    expect(errors).toEqual([])
    await told('broken.png', /^E_DATA_IMAGE: broken.png is of no image format/)
    // The browser itself writes down that an answer was 400.
    expect(errors.filter((error) => !/status of 400/.test(error))).toEqual([])
  })
})
