import { FileServer } from '@convoy/download/server'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import sharp from 'sharp'
import { create } from 'tar'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { loadDataset, type LoadOptions } from './load.ts'
import { describeDataset } from './statistics.ts'
import { whiten } from './whiten.ts'

let folder: string
let options: LoadOptions
const warnings: string[] = []
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-data-'))
  warnings.length = 0
  options = {
    cacheDirectory: path.join(folder, 'cache'),
    environment: {},
    warn: (text) => warnings.push(text),
    timeout: 5_000,
  }
})
afterEach(() => rmSync(folder, { recursive: true, force: true }))

const failsWith = (code: string, message: RegExp): unknown =>
  expect.objectContaining({
    code,
    message: expect.stringMatching(message) as string,
    remedy: expect.stringMatching(/\w/) as string,
  })

/** Writes images [train 2, test 1 a class] and gives the folder. */
async function imageFolder(classes = ['cat', 'ant']): Promise<string> {
  const root = path.join(folder, 'images')
  for (const [split, count] of [
    ['train', 2],
    ['test', 1],
  ] as const) {
    for (const [index, label] of classes.entries()) {
      mkdirSync(path.join(root, split, label), { recursive: true })
      for (let i = 0; i < count; i++) {
        const background = { r: 10 + 100 * index, g: 20 + i, b: 30 }
        const image = sharp({ create: { width: 32, height: 32, channels: 3, background } })
        await image.png().toFile(path.join(root, split, label, `${i}.png`))
      }
    }
  }
  return root
}

async function archiveOf(root: string, name = 'images.tar.gz'): Promise<string> {
  const file = path.join(folder, name)
  await create({ gzip: true, file, cwd: root }, readdirSync(root))
  return file
}

/** Official records: label, then planes of R = 1, G = 2, B = 3 but for the first pixel. */
function batch(labels: readonly number[]): Buffer {
  return Buffer.concat(
    labels.map((label) => {
      const record = Buffer.alloc(3073)
      record[0] = label
      record.fill(1, 1, 1025).fill(2, 1025, 2049).fill(3, 2049)
      record[1] = 200 + label
      return record
    }),
  )
}

function batchFolder(): string {
  const root = path.join(folder, 'cifar-10-batches-bin')
  mkdirSync(root)
  writeFileSync(path.join(root, 'data_batch_1.bin'), batch([3, 0]))
  writeFileSync(path.join(root, 'data_batch_2.bin'), batch([9]))
  writeFileSync(path.join(root, 'test_batch.bin'), batch([5]))
  return root
}

describe('the official batches', () => {
  it('are read from a folder, planes becoming pixels', async () => {
    const { train, test, classes } = await loadDataset(batchFolder(), options)
    expect([...train.labels, ...test.labels]).toEqual([3, 0, 9, 5])
    expect(classes[3]).toBe('cat')
    expect([...train.pixels.subarray(0, 6)]).toEqual([203, 2, 3, 1, 2, 3])
    expect([...train.pixels.subarray(3072, 3075)]).toEqual([200, 2, 3])
  })

  it('are found in a folder around them, and in an archive', async () => {
    const direct = await loadDataset(batchFolder(), options)
    expect((await loadDataset(folder, options)).fingerprint).toBe(direct.fingerprint)
    const file = path.join(folder, 'x.tar.gz')
    await create({ gzip: true, file, cwd: folder }, ['cifar-10-batches-bin'])
    expect((await loadDataset(file, options)).fingerprint).toBe(direct.fingerprint)
  })

  it.each([
    [
      'cut off',
      (root: string) => truncateSync(path.join(root, 'data_batch_2.bin'), 3000),
      'E_DATA_TRUNCATED',
      /data_batch_2\.bin has 3000 bytes/,
    ],
    [
      'of another label',
      (root: string) => writeFileSync(path.join(root, 'test_batch.bin'), batch([10])),
      'E_DATA_FORMAT',
      /label 10/,
    ],
    [
      'without a test',
      (root: string) => rmSync(path.join(root, 'test_batch.bin')),
      'E_DATA_FORMAT',
      /lacks test_batch/,
    ],
  ])('that are %s are refused', async (_, spoil, code, message) => {
    const root = batchFolder()
    spoil(root)
    await expect(loadDataset(root, options)).rejects.toEqual(failsWith(code, message))
  })
})

describe('fetching CIFAR-10', () => {
  let server: FileServer
  let archive: Buffer
  beforeEach(async () => {
    batchFolder()
    const file = path.join(folder, 'official.tar.gz')
    await create({ gzip: true, file, cwd: folder }, ['cifar-10-batches-bin'])
    archive = readFileSync(file)
    server = new FileServer(() => archive)
    const sha256 = createHash('sha256').update(archive).digest('hex')
    options = { ...options, url: `${await server.listen()}/x`, sha256 }
  })
  afterEach(() => server.close())

  it('goes on where a broken fetch stopped, and needs no server the next time', async () => {
    server.cut = 100
    await expect(loadDataset('cifar10', options)).rejects.toEqual(
      failsWith('E_DATA_DOWNLOAD', /could not be fetched/),
    )
    server.cut = Infinity
    const dataset = await loadDataset('cifar10', options)
    expect(dataset.train.count).toBe(3)
    expect(server.asked).toEqual(['/x', '/x bytes=100-'])
    server.close()
    expect((await loadDataset('cifar10', { ...options, url: 'http://127.0.0.1:9/' })).fingerprint).toBe(
      dataset.fingerprint,
    )
    expect(server.asked).toHaveLength(2)
  })

  it('refuses a file with another checksum, and does not keep it', async () => {
    await expect(loadDataset('cifar10', { ...options, sha256: '0'.repeat(64) })).rejects.toEqual(
      failsWith('E_DATA_CHECKSUM', /instead of 0000/),
    )
    expect(readdirSync(options.cacheDirectory!)).toEqual([])
  })

  it('says where to put the file when there is no answer', async () => {
    const silent = createServer(() => {})
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/`
    await expect(loadDataset('cifar10', { ...options, url, timeout: 100 })).rejects.toMatchObject({
      code: 'E_DATA_DOWNLOAD',
      remedy: expect.stringContaining('cifar-10-binary.tar.gz') as string,
    })
    silent.closeAllConnections()
    silent.close()
  })

  it('is for those who ask for it: auto takes what is in the cache, and else draws images', async () => {
    const auto = () => loadDataset('auto', { ...options, limitTrain: 2, limitTest: 1 })
    const drawn = await auto()
    expect(drawn.name).toBe('synthetic')
    expect(drawn.origin).toMatch(/no CONVOY_DATA is set/)
    expect(server.asked).toEqual([])
    await loadDataset('cifar10', options)
    expect((await auto()).name).toBe('cifar10')
    expect(server.asked).toEqual(['/x'])
    // Batches have one size; images of another are drawn.
    const small = await loadDataset('auto', { ...options, size: 16 })
    expect(describeDataset(small)).toMatchObject({ name: 'synthetic', shape: [16, 16, 3] })
  })
})

describe('images', () => {
  it('are read from a folder and an archive alike, classes by name', async () => {
    const root = await imageFolder()
    const dataset = await loadDataset(root, options)
    expect(dataset.classes).toEqual(['ant', 'cat'])
    expect(describeDataset(dataset)).toMatchObject({
      trainCounts: [2, 2],
      testCounts: [1, 1],
      shape: [32, 32, 3],
    })
    expect([...dataset.train.labels]).toEqual([0, 0, 1, 1])
    expect([...dataset.train.pixels.subarray(0, 3)]).toEqual([110, 20, 30])
    expect((await loadDataset(await archiveOf(root), options)).fingerprint).toBe(dataset.fingerprint)
    const named = await loadDataset('auto', { ...options, environment: { CONVOY_DATA: root } })
    expect(named.origin).toMatch(/named by CONVOY_DATA/)
  })

  it('of any size, grey or transparent, become RGB of one size', async () => {
    const root = await imageFolder()
    const place = (name: string) => path.join(root, 'train', 'ant', name)
    await sharp({ create: { width: 50, height: 20, channels: 3, background: 'red' } })
      .jpeg()
      .toFile(place('a.jpg'))
    await sharp(Buffer.alloc(64, 77), { raw: { width: 8, height: 8, channels: 1 } })
      .png()
      .toFile(place('b.png'))
    await sharp({ create: { width: 8, height: 8, channels: 4, background: { r: 9, g: 9, b: 9, alpha: 0 } } })
      .png()
      .toFile(place('c.png'))
    const { train, shape } = await loadDataset(root, { ...options, size: 16 })
    expect(shape).toEqual([16, 16, 3])
    const pixel = (image: number) => [...train.pixels.subarray(image * 768, image * 768 + 3)]
    // In the order of their names: 0.png, 1.png, a.jpg, b.png, c.png.
    expect(pixel(2)[0]).toBeGreaterThan(240)
    expect(pixel(3)).toEqual([77, 77, 77])
    expect(pixel(4)).toEqual([0, 0, 0])
  })

  it.each([
    [
      'a text file named .jpg',
      (root: string) => writeFileSync(path.join(root, 'train', 'cat', 'x.jpg'), 'words'),
      'E_DATA_IMAGE',
      /train\/cat\/x\.jpg/,
    ],
    [
      'an empty class folder',
      (root: string) => mkdirSync(path.join(root, 'train', 'dog')),
      'E_DATA_EMPTY_CLASS',
      /train\/dog/,
    ],
    [
      'a class without test images',
      (root: string) => rmSync(path.join(root, 'test', 'cat', '0.png')),
      'E_DATA_EMPTY_CLASS',
      /test\/cat/,
    ],
    [
      'no test images',
      (root: string) => rmSync(path.join(root, 'test'), { recursive: true }),
      'E_DATA_FORMAT',
      /no images under test/,
    ],
  ])('with %s are refused', async (_, spoil, code, message) => {
    const root = await imageFolder()
    spoil(root)
    await expect(loadDataset(root, options)).rejects.toEqual(failsWith(code, message))
  })

  it('in a truncated archive, or in none, are refused', async () => {
    const file = await archiveOf(await imageFolder())
    truncateSync(file, Math.floor(readFileSync(file).length / 2))
    await expect(loadDataset(file, options)).rejects.toEqual(failsWith('E_DATA_TRUNCATED', /ends too early/))
    const text = path.join(folder, 'words.tar.gz')
    writeFileSync(text, 'words')
    await expect(loadDataset(text, options)).rejects.toMatchObject({
      code: expect.stringMatching(/^E_DATA_/) as string,
    })
    await expect(loadDataset(path.join(folder, 'nothing'), options)).rejects.toEqual(
      failsWith('E_DATA_NOT_FOUND', /nothing/),
    )
    mkdirSync(path.join(folder, 'empty'))
    await expect(loadDataset(path.join(folder, 'empty'), options)).rejects.toEqual(
      failsWith('E_DATA_FORMAT', /holds neither/),
    )
  })
})

describe('a folder of more images than a call has arguments', () => {
  it('is listed as any other', async () => {
    const [root, one] = [path.join(folder, 'many'), path.join(folder, 'one')]
    mkdirSync(one)
    for (let i = 0; i < 1_000; i++) writeFileSync(path.join(one, `${i}.png`), '')
    mkdirSync(path.join(root, 'train'), { recursive: true })
    // Links have their own names.
    for (let i = 0; i < 70; i++) symlinkSync(one, path.join(root, 'train', `class${i}`))
    await expect(loadDataset(root, options)).rejects.toThrow(
      failsWith('E_DATA_FORMAT', /no images under test\/.* but 70000 to train on/),
    )
  })
})

describe('the cache', () => {
  const cachedFile = () => {
    const directory = path.join(options.cacheDirectory!, 'datasets')
    return path.join(directory, readdirSync(directory)[0])
  }

  it('is rebuilt where a file is torn', async () => {
    const file = await archiveOf(await imageFolder())
    const { fingerprint } = await loadDataset(file, options)
    truncateSync(cachedFile(), 500)
    expect((await loadDataset(file, options)).fingerprint).toBe(fingerprint)
    const bytes = readFileSync(cachedFile())
    bytes[bytes.length - 1] ^= 1
    writeFileSync(cachedFile(), bytes)
    expect((await loadDataset(file, options)).fingerprint).toBe(fingerprint)
  })

  it.skipIf(process.getuid?.() === 0)(
    'only warns where it cannot be written (skipped as root, who can write anywhere)',
    async () => {
      const root = await imageFolder()
      mkdirSync(options.cacheDirectory!)
      chmodSync(options.cacheDirectory!, 0o500)
      expect((await loadDataset(root, options)).train.count).toBe(4)
      expect(warnings.filter((text) => /is not kept/.test(text))).toHaveLength(1)
    },
  )

  it('only warns where a file stands in its way', async () => {
    writeFileSync(path.join(folder, 'cache'), '')
    expect((await loadDataset(await imageFolder(), options)).train.count).toBe(4)
    expect(warnings.filter((text) => /is not kept/.test(text))).toHaveLength(1)
    expect(existsSync(path.join(folder, 'cache', 'datasets'))).toBe(false)
  })
})

describe('limits', () => {
  it('take a subset that is mixed, the same each time, and has a fingerprint of its own', async () => {
    const whole = await loadDataset(batchFolder(), options)
    const some = await loadDataset(path.join(folder, 'cifar-10-batches-bin'), { ...options, limitTrain: 2 })
    expect(some.train.count).toBe(2)
    expect(some.test.count).toBe(1)
    expect(some.fingerprint).not.toBe(whole.fingerprint)
    const again = await loadDataset(path.join(folder, 'cifar-10-batches-bin'), { ...options, limitTrain: 2 })
    expect(again.fingerprint).toBe(some.fingerprint)
  })

  it('are of what is left when images are held out', async () => {
    const images = await imageFolder()
    const tested = async (more: LoadOptions) =>
      describeDataset(await loadDataset(images, { ...options, holdOut: 2, ...more }))
    // Of 2 + 2 training images; the test set, 1 + 1, is not touched.
    expect(await tested({})).toMatchObject({ trainCounts: [1, 1], testCounts: [1, 1] })
    expect((await tested({})).fingerprint).toBe((await tested({})).fingerprint)
    const { trainCounts, testCounts } = await tested({ limitTrain: 1, limitTest: 1 })
    expect([...trainCounts].sort()).toEqual([0, 1])
    expect([...testCounts].sort()).toEqual([0, 1])
    await expect(tested({ holdOut: 3 })).rejects.toEqual(failsWith('E_USAGE', /--hold-out 3 leaves a class/))
  })

  it('hold out the same synthetic images, which are drawn besides those that are trained on', async () => {
    const load = (more: LoadOptions) =>
      loadDataset('synthetic', { ...options, size: 8, limitTest: 20, holdOut: 20, ...more })
    const { train, test } = await load({ limitTrain: 50 })
    expect([train.count, test.count]).toEqual([50, 20])
    expect((await load({ limitTrain: 50 })).test.pixels).toEqual(test.pixels)
  })
})

describe('synthetic', () => {
  it('is the same each time, with its ten classes in equal parts', async () => {
    const load = () => loadDataset('synthetic', { ...options, limitTrain: 100, limitTest: 20 })
    const dataset = await load()
    expect((await load()).fingerprint).toBe(dataset.fingerprint)
    expect(describeDataset(dataset)).toMatchObject({
      trainCounts: new Array(10).fill(10),
      testCounts: new Array(10).fill(2),
    })
  })

  it('is beyond a linear classifier: under 60 %', async () => {
    const { train, test } = await loadDataset('synthetic', { ...options, limitTrain: 3_000, limitTest: 500 })
    const size = 3072
    const weights = new Float64Array(10 * size)
    const scores = (pixels: Uint8Array | Float32Array, at: number) =>
      Array.from({ length: 10 }, (_, k) => {
        let sum = 0
        for (let i = 0; i < size; i++) sum += weights[k * size + i] * (pixels[at + i] / 128 - 1)
        return sum
      })
    for (let epoch = 0; epoch < 6; epoch++) {
      for (let n = 0; n < train.count; n++) {
        const z = scores(train.pixels, n * size)
        const largest = Math.max(...z)
        const powers = z.map((value) => Math.exp(value - largest))
        const sum = powers.reduce((a, b) => a + b)
        for (let k = 0; k < 10; k++) {
          const push = (0.001 / (1 + epoch)) * (powers[k] / sum - (k === train.labels[n] ? 1 : 0))
          for (let i = 0; i < size; i++)
            weights[k * size + i] -= push * (train.pixels[n * size + i] / 128 - 1)
        }
      }
    }
    let right = 0
    for (let n = 0; n < test.count; n++) {
      const z = scores(test.pixels, n * size)
      if (z.indexOf(Math.max(...z)) === test.labels[n]) right++
    }
    expect(right / test.count).toBeLessThan(0.6)
    // It does learn something: the bound is not met by a classifier that fails.
    expect(right / test.count).toBeGreaterThan(0.12)
  })
})

describe('whiten', () => {
  it('leaves pixels uncorrelated and of about one variance', async () => {
    const dataset = await loadDataset('synthetic', { ...options, limitTrain: 1100, limitTest: 20, size: 8 })
    const { train, test } = await whiten(dataset, 1e-3, () => {})
    expect(test.pixels).toBeInstanceOf(Float32Array)
    const size = 192
    const covariance = (i: number, j: number) => {
      let sum = 0
      for (let n = 0; n < train.count; n++) sum += train.pixels[n * size + i] * train.pixels[n * size + j]
      return sum / train.count
    }
    for (const [i, j] of [
      [0, 1],
      [5, 100],
      [30, 33],
      [190, 191],
    ]) {
      expect(Math.abs(covariance(i, j))).toBeLessThan(0.05)
      // A little less than 1: each image's mean was taken away, which is one direction less.
      expect(covariance(i, i)).toBeGreaterThan(0.8)
      expect(covariance(i, i)).toBeLessThan(1.05)
    }
  })
})

const images = process.env['CONVOY_DATA']
describe.skipIf(!images)('the real images (skipped: CONVOY_DATA is not set)', () => {
  it('are all of CIFAR-10', async () => {
    // In the user's cache, as the other tests of real images use it too.
    const dataset = await loadDataset(images!)
    const { trainCounts, testCounts, mean, deviation } = describeDataset(dataset)
    expect(trainCounts).toEqual(new Array(10).fill(5000))
    expect(testCounts).toEqual(new Array(10).fill(1000))
    for (const [i, value] of [0.4913, 0.4821, 0.4465].entries()) expect(mean[i]).toBeCloseTo(value, 3)
    for (const [i, value] of [0.245, 0.243, 0.261].entries()) expect(deviation[i]).toBeCloseTo(value, 2)
  })
})
