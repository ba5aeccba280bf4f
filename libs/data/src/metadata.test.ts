import { zipSync } from 'fflate'
import { parquetWriteBuffer } from 'hyparquet-writer'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import sharp from 'sharp'
import { create } from 'tar'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { loadDataset, type LoadOptions } from './load.ts'

let home: string
let root: string
/** Seven different ones. */
let images: Buffer[]
beforeAll(async () => {
  home = mkdtempSync(path.join(tmpdir(), 'convoy-metadata-'))
  const pixels = (n: number) => Buffer.from(Array.from({ length: 192 }, (_, i) => (i * 7 + n * 31) % 251))
  images = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7].map((n) =>
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

const put = (name: string, content: string | Buffer) => {
  const file = path.join(root, name)
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, content)
}
/** Lays images out under such names. */
const lay = (...names: string[]) => names.forEach((name, i) => put(name, images[i]))
const load = (source = root, more: LoadOptions = {}) =>
  loadDataset(source, { cacheDirectory: path.join(home, 'cache'), environment: {}, ...more })
const refused = (message: RegExp) => ({
  code: 'E_DATA_FORMAT',
  message: expect.stringMatching(message) as string,
})
const flat = ['train/a1.png', 'train/a2.png', 'train/b1.png', 'train/b2.png', 'test/a1.png', 'test/b1.png']

describe('metadata', () => {
  it('tells the classes of images that lie in no folders of them: the same data set', async () => {
    lay(
      'train/a/1.png',
      'train/a/2.png',
      'train/b, c/1.png',
      'train/b, c/2.png',
      'test/a/1.png',
      'test/b, c/1.png',
    )
    const { fingerprint } = await load()
    rmSync(root, { recursive: true })
    lay(...flat)
    put(
      'train/metadata.csv',
      '\ufefffile_name,"label",text\r\na1.png,a,"say ""a""\r\ntwice"\r\na2.png,a,\r\nb1.png,"b, c",\r\n\r\nb2.png,"b, c",',
    )
    put(
      'test/metadata.jsonl',
      '{"file_name":"a1.png","label":"a"}\n\n{"file_name":"./b1.png","label":"b, c"}',
    )
    const dataset = await load()
    expect(dataset.classes).toEqual(['a', 'b, c'])
    expect(dataset.fingerprint).toBe(fingerprint)
    expect(dataset.notes).toEqual(['classes are those of the metadata'])
  })

  it('may stand at the top, number the classes, and be in an archive', async () => {
    const names = Array.from({ length: 6 }, (_, i) => `images/${i}.png`)
    lay(...names)
    const rows = names.map((name, i) => JSON.stringify({ file_name: name, label: i % 2 ? 10 : 2 }))
    put('metadata.jsonl', rows.join('\n'))
    const dataset = await load(root, { holdOut: 2 })
    expect(dataset.classes).toEqual(['10', '2'])
    const [zip, tar] = [path.join(home, 'a.zip'), path.join(home, 'a.tar.gz')]
    const all = ['metadata.jsonl', ...names]
    writeFileSync(
      zip,
      zipSync(Object.fromEntries(all.map((name) => [name, readFileSync(path.join(root, name))]))),
    )
    await create({ file: tar, cwd: root, gzip: true }, all)
    for (const archive of [zip, tar])
      expect((await load(archive, { holdOut: 2 })).fingerprint).toBe(dataset.fingerprint)
  })

  it('may be Parquet, with names of classes', async () => {
    lay(...flat)
    const columnData = [
      { name: 'file_name', data: flat, type: 'STRING' as const },
      { name: 'label', data: [0, 0, 1, 1, 0, 1], type: 'INT32' as const },
      { name: 'score', data: [0, 1, 2, 3, 4, 5], type: 'DOUBLE' as const },
    ]
    const features = { label: { _type: 'ClassLabel', names: ['cat', 'ant'] } }
    const kvMetadata = [{ key: 'huggingface', value: JSON.stringify({ info: { features } }) }]
    put('metadata.parquet', Buffer.from(parquetWriteBuffer({ columnData, kvMetadata })))
    const dataset = await load()
    expect(dataset.classes).toEqual(['ant', 'cat'])
    expect([...dataset.train.labels]).toEqual([1, 1, 0, 0])
  })

  it('gives way to folders of classes, and what it says otherwise is told', async () => {
    lay('train/a/1.png', 'train/a/2.png', 'train/b/1.png', 'train/b/2.png', 'test/a/1.png', 'test/b/1.png')
    const { fingerprint } = await load()
    const rows = (a: string, b: string) =>
      `file_name,label\na/1.png,${a}\na/2.png,${a}\nb/1.png,${a}\nb/2.png,${b}\n`
    put('train/metadata.csv', rows('a', 'b'))
    const dataset = await load()
    expect(dataset.fingerprint).toBe(fingerprint)
    expect(dataset.notes).toEqual([
      'the folders of images count; metadata says another class of 1: train/b/1.png is a',
    ])
    // Numbers of the same classes contradict nothing.
    put('train/metadata.csv', rows('0', '1').replace('b/1.png,0', 'b/1.png,1'))
    expect((await load()).notes).toEqual([])
  })

  it('that names other images than there are is told', async () => {
    lay(...flat, 'train/c.png')
    put(
      'metadata.csv',
      `file_name,label\n${flat.map((name, i) => `${name},${'aabbab'[i]}\n`).join('')}gone.png,a\ntrain/c.png,\n`,
    )
    const { notes } = await load()
    expect(notes).toEqual([
      'rows of metadata name images that are not there: gone.png',
      'rows of metadata whose label is neither text nor a number: 1',
      'classes are those of the metadata',
      '1 file is left out, having no label: train/c.png',
    ])
  })

  it.each([
    [
      'without labels',
      'metadata.csv',
      'file_name,text\na1.png,x',
      /no folders of classes: .*; train\/metadata\.csv has not the columns file_name and label, but file_name, text/,
    ],
    [
      'in Parquet that is none',
      'metadata.parquet',
      'file_name,label',
      /metadata\.parquet is no Parquet file/,
    ],
    [
      'with a line that is no JSON',
      'metadata.jsonl',
      '{"file_name":"a1.png","label":1}\nnull',
      /its line 2 is no JSON object/,
    ],
    [
      'with fields that are missing',
      'metadata.csv',
      'file_name,label\na1.png',
      /its row 1 has 1 fields instead of 2/,
    ],
    // Long: a reader that looks back would take for ever.
    [
      'with quotes that do not end',
      'metadata.csv',
      `file_name,label\n"a1.png,${'a'.repeat(1_000)}`,
      /its line 2 is no CSV/,
    ],
    [
      'in another code than UTF-8',
      'metadata.csv',
      Buffer.from('file_name,label\na1.png,\xe9', 'latin1'),
      /not UTF-8/,
    ],
    [
      'that contradicts itself',
      'metadata.csv',
      'file_name,label\na1.png,a\n./a1.png,b',
      /a1\.png is b, and elsewhere that it is a/,
    ],
  ])('%s is refused', async (_, name, content, message) => {
    lay(...flat)
    put(`train/${name}`, content)
    await expect(load()).rejects.toMatchObject(refused(message))
  })
})
