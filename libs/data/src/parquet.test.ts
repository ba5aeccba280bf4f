import type { ColumnSource, SchemaElement } from 'hyparquet-writer'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import zlib from 'node:zlib'
import sharp from 'sharp'
import { create } from 'tar'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { loadDataset, type LoadOptions } from './load.ts'

let home: string
let root: string
let images: Buffer[]
beforeAll(async () => {
  home = mkdtempSync(path.join(tmpdir(), 'convoy-parquet-'))
  const pixels = (n: number) => Buffer.from(Array.from({ length: 192 }, (_, i) => (i * 7 + n * 31) % 251))
  images = await Promise.all(
    Array.from({ length: 12 }, (_, n) =>
      sharp(pixels(n), { raw: { width: 8, height: 8, channels: 3 } })
        .png()
        .toBuffer(),
    ),
  )
})
afterAll(() => rmSync(home, { recursive: true }))
beforeEach(() => {
  root = path.join(home, 'set')
  mkdirSync(root)
  return () => rmSync(root, { recursive: true })
})

type Options = Partial<Parameters<typeof parquetWriteBuffer>[0]>
interface Sample {
  readonly image: unknown
  readonly label: unknown
}

const put = (name: string, content: string | Uint8Array) => {
  const file = path.join(root, name)
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, content)
  return file
}
const load = (source = root, more: LoadOptions = {}) =>
  loadDataset(source, { cacheDirectory: path.join(home, 'cache'), environment: {}, ...more })
const refused = (code: string, message: RegExp) => ({
  code,
  message: expect.stringMatching(message) as string,
})

const STRUCT: SchemaElement[] = [
  { name: 'root', num_children: 2 },
  { name: 'img', repetition_type: 'OPTIONAL', num_children: 2 },
  { name: 'bytes', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
  { name: 'path', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
  { name: 'label', type: 'INT64', repetition_type: 'OPTIONAL' },
]
const note = (names: readonly string[]) => [
  {
    key: 'huggingface',
    value: JSON.stringify({
      info: { features: { img: { _type: 'Image' }, label: { names, _type: 'ClassLabel' } } },
    }),
  },
]
const write = (columnData: ColumnSource[], more: Options = {}) =>
  new Uint8Array(parquetWriteBuffer({ columnData, ...more }))
/** As Hugging Face's datasets write images. */
const table = (samples: readonly Sample[], more: Options = {}) =>
  write(
    [
      { name: 'img', data: samples.map(({ image }) => image) },
      { name: 'label', data: samples.map(({ label }) => label) },
    ],
    { schema: STRUCT, kvMetadata: note(['cat', 'ant']), rowGroupSize: 3, ...more },
  )
const sample = (n: number): Sample => ({
  image: { bytes: images[n], path: `${n}.png` },
  label: BigInt(n % 2),
})
const samples = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => sample(from + i))
const TRAIN = 'plain_text/train-00000-of-00001.parquet'
const TEST = 'plain_text/test-00000-of-00001.parquet'
const lay = (more: Options = {}) => {
  put(TRAIN, table(samples(0, 8), more))
  put(TEST, table(samples(8, 12), more))
}

describe('a data set of Parquet files', () => {
  it('is that of its images in the order of rows, with the names of classes', async () => {
    lay()
    put('README.md', '# CIFAR')
    const dataset = await load()
    expect(dataset.classes).toEqual(['cat', 'ant'])
    expect([...dataset.train.labels]).toEqual([0, 1, 0, 1, 0, 1, 0, 1])
    expect(dataset.notes).toEqual([`images are the rows of Parquet files: ${TEST}, ${TRAIN}`])
    const { data } = await sharp(images[1])
      .resize(32, 32, { fit: 'fill' })
      .raw()
      .toBuffer({ resolveWithObject: true })
    expect(Buffer.from(dataset.train.pixels.subarray(3072, 6144))).toEqual(data)
    expect((await load()).fingerprint).toBe(dataset.fingerprint)
  })

  it('is the same in shards, in an archive, with the split as a folder, packed otherwise', async () => {
    lay()
    const { fingerprint } = await load()
    const tar = path.join(home, 'set.tar.gz')
    await create({ file: tar, cwd: root, gzip: true }, ['plain_text'])
    expect((await load(tar)).fingerprint).toBe(fingerprint)
    rmSync(path.join(root, TRAIN))
    put('plain_text/train-00001-of-00002.parquet', table(samples(5, 8)))
    await expect(load()).rejects.toMatchObject(
      refused('E_DATA_TRUNCATED', /has 1 of the 2 files of plain_text\/train/),
    )
    put('plain_text/train-00000-of-00002.parquet', table(samples(0, 5)))
    expect((await load()).fingerprint).toBe(fingerprint)
    rmSync(path.join(root, 'plain_text'), { recursive: true })
    put('default/train/0000.parquet', table(samples(0, 8), { codec: 'UNCOMPRESSED' }))
    const gzip = (bytes: Uint8Array) => new Uint8Array(zlib.gzipSync(bytes))
    put('default/test/0000.parquet', table(samples(8, 12), { codec: 'GZIP', compressors: { GZIP: gzip } }))
    expect((await load()).fingerprint).toBe(fingerprint)
  })

  it('may be one file, of bare bytes, with numbers for classes in their order', async () => {
    const labels = Array.from({ length: 12 }, (_, n) => [10, 9][n % 2])
    const file = put(
      'all.parquet',
      write([
        { name: 'picture', data: images, type: 'BYTE_ARRAY' },
        { name: 'label', data: labels, type: 'INT32' },
      ]),
    )
    const dataset = await load(file, { holdOut: 4 })
    expect(dataset.classes).toEqual(['9', '10'])
    expect([dataset.train.count, dataset.test.count]).toEqual([8, 4])
    await expect(load(file)).rejects.toMatchObject(refused('E_DATA_FORMAT', /no images under test/))
  })

  it('names what cannot be decoded by its row, and leaves it out', async () => {
    lay()
    const broken = [...samples(0, 8), { image: { bytes: Buffer.from('no image'), path: null }, label: 0n }]
    const pathAlone = [
      ...broken,
      { image: { bytes: null, path: 'x.png' }, label: 1n },
      { image: null, label: 1n },
    ]
    put(TRAIN, table(pathAlone))
    await expect(load()).rejects.toMatchObject(
      refused(
        'E_DATA_IMAGE',
        /3 of 15 images[^]*row 10 has no bytes[^]*row 11 has no bytes[^]*row 9 is of no image/,
      ),
    )
    const { train, skipped } = await load(root, { skipUnreadable: true })
    expect(train.count).toBe(8)
    expect(skipped).toHaveLength(3)
  })

  it.each<[string, string, () => Uint8Array | string, RegExp]>([
    [
      'null labels',
      'E_DATA_FORMAT',
      () => table([sample(0), { ...sample(1), label: null }]),
      /row 2 has no label/,
    ],
    [
      'labels without a name',
      'E_DATA_FORMAT',
      () => table([{ ...sample(0), label: -1n }]),
      /row 1 has the label -1/,
    ],
    [
      'no images',
      'E_DATA_FORMAT',
      () => write([{ name: 'label', data: [1], type: 'INT32' }]),
      /no column of images, but label/,
    ],
    [
      'no labels',
      'E_DATA_FORMAT',
      () => write([{ name: 'image', data: [images[0]], type: 'BYTE_ARRAY' }]),
      /no column of labels, but image/,
    ],
    ['half a file', 'E_DATA_TRUNCATED', () => table(samples(0, 8)).subarray(0, 500), /ends too early/],
    ['a page of HTML', 'E_DATA_FORMAT', () => '<!doctype html><p>', /is a page of HTML/],
    [
      'a pointer',
      'E_DATA_FORMAT',
      () => 'version https://git-lfs.github.com/spec/v1\n',
      /pointer of Git LFS/,
    ],
    ['nothing', 'E_DATA_FORMAT', () => '', /is empty/],
    ['an absurd footer', 'E_DATA_FORMAT', () => `PAR1${'x'.repeat(20)}\xff\xff\xff\x7fPAR1`, /footer has/],
    ['an encrypted footer', 'E_DATA_FORMAT', () => `PARE${'x'.repeat(20)}PARE`, /is encrypted/],
    [
      'a codec that is not read',
      'E_DATA_FORMAT',
      () => table(samples(0, 8), { codec: 'LZO', compressors: { LZO: (bytes) => bytes } }),
      /is compressed with LZO/,
    ],
  ])('with %s is refused', async (_, code, make, message) => {
    lay()
    const content = make()
    put(TRAIN, typeof content === 'string' ? Buffer.from(content, 'latin1') : content)
    await expect(load()).rejects.toMatchObject(refused(code, message))
  })

  it('that is damaged anywhere is read or refused', async () => {
    const [good, mild] = [table(samples(0, 8)), table(samples(8, 12))]
    put(TEST, mild)
    const before = process.memoryUsage().rss
    for (let i = 0; i < 120; i++) {
      const bytes = Uint8Array.from(good)
      // Half of the flips in the footer and the labels, which are at the end.
      const at = i % 2 ? good.length - 1 - ((i * 37) % 900) : (i * 7919) % good.length
      bytes[at] ^= 1 << (i % 8)
      put(TRAIN, bytes)
      const error: unknown = await load(root, { cacheDirectory: path.join(home, 'none') }).then(
        () => undefined,
        (thrown: unknown) => thrown,
      )
      if (error !== undefined)
        expect(error).toMatchObject({ code: expect.stringMatching(/^E_DATA_/) as string })
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(500 * 2 ** 20)
  }, 300_000)
})
