import { loadDataset } from '@convoy/data'
import { parquetWriteBuffer, type SchemaElement } from 'hyparquet-writer'
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { afterAll, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const schema: SchemaElement[] = [
  { name: 'root', num_children: 2 },
  { name: 'img', repetition_type: 'OPTIONAL', num_children: 2 },
  { name: 'bytes', type: 'BYTE_ARRAY', repetition_type: 'OPTIONAL' },
  { name: 'path', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'OPTIONAL' },
  { name: 'label', type: 'INT64', repetition_type: 'OPTIONAL' },
]

/** Images that differ, as PNG files. */
const images = (count: number) =>
  Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const pixels = Buffer.from(Array.from({ length: 3072 }, (_, j) => (i * j * 7 + i) % 251))
      const raw = { width: 32, height: 32, channels: 3 } as const
      return { bytes: await sharp(pixels, { raw }).png().toBuffer(), path: `${i}.png` }
    }),
  )

it('a Parquet file gives the same weights whoever computes', async () => {
  const columnData = [
    { name: 'img', data: await images(40) },
    { name: 'label', data: Array.from({ length: 40 }, (_, i) => BigInt(i % 2)) },
  ]
  const data = path.join(folder, 'train.parquet')
  writeFileSync(data, new Uint8Array(parquetWriteBuffer({ columnData, schema, rowGroupSize: 16 })))
  const train = async (workers: string) => {
    const run = new Convoy([
      ...['train', '--data', data, '--hold-out', '10', '--width', '0.125', '--batch-size', '16'],
      ...['--micro-batch', '4', '--epochs', '2', '--workers', workers, '--runs', folder],
      ...['--name', `by-${workers}`, '--port', '0', '--json'],
    ])
    return (await run.done())['parametersSha256']
  }
  const sum = await train('1')
  expect(sum).toMatch(/^[0-9a-f]{64}$/)
  expect(await train('2')).toBe(sum)
})

/** The first Python of CONVOY_PYARROW_PYTHON, or python3, that has pyarrow. */
const python = (process.env['CONVOY_PYARROW_PYTHON'] || 'python3')
  .split(path.delimiter)
  .find((name) => spawnSync(name, ['-c', 'import pyarrow.parquet']).status === 0)
const skipped = python
  ? ''
  : ' (skipped: python3 has no pyarrow; pip install pyarrow, or set CONVOY_PYARROW_PYTHON)'

/** Writes the images of a folder as a table, packed in ways that are found in the wild. */
const WRITE = `
import os, sys, pyarrow as pa, pyarrow.parquet as pq
images, out = sys.argv[1:]
count = len(os.listdir(images))
read = lambda i: {'bytes': open(f'{images}/{i}.png', 'rb').read(), 'path': f'{i}.png'}
table = pa.table({'img': [read(i) for i in range(count)], 'label': [i % 3 for i in range(count)]})
pages = dict(write_batch_size=8, data_page_size=2000)
for name, options in {
    'as it is': {},
    'no compression': dict(compression='none'),
    'gzip': dict(compression='gzip'),
    'brotli': dict(compression='brotli'),
    'pages': pages,
    'a dictionary that ends': dict(**pages, dictionary_pagesize_limit=3000),
    'no dictionary': dict(use_dictionary=False),
    'pages of version 2': dict(data_page_version='2.0', **pages),
    'groups of rows': dict(row_group_size=7),
    'checksums and an index': dict(write_page_checksum=True, write_page_index=True, **pages),
    'format 1.0': dict(version='1.0'),
    'zstd': dict(compression='zstd'),
    'lz4': dict(compression='lz4'),
    'differences': dict(use_dictionary=False, column_encoding={'label': 'DELTA_BINARY_PACKED'}),
}.items():
    pq.write_table(table, f'{out}/{name}.parquet', **options)
`

it.skipIf(!python)(`files of pyarrow are read, however they are packed, or refused${skipped}`, async () => {
  const [from, to] = ['images', 'pyarrow'].map((name) => path.join(folder, name))
  for (const one of [from, to]) mkdirSync(one)
  for (const { bytes, path: name } of await images(60)) writeFileSync(path.join(from, name), bytes)
  execFileSync(python!, ['-c', WRITE, from, to])
  const refusals = ['differences.parquet', 'lz4.parquet']
  // Node.js has it from 22.15 on.
  if (!process.versions['zstd']) refusals.push('zstd.parquet')
  const fingerprints = new Set<string>()
  const refused: string[] = []
  for (const name of readdirSync(to)) {
    const options = { cacheDirectory: path.join(folder, 'cache'), environment: {}, holdOut: 6 }
    try {
      const dataset = await loadDataset(path.join(to, name), options)
      expect(dataset.train.count + dataset.test.count).toBe(60)
      fingerprints.add(dataset.fingerprint)
    } catch (error) {
      expect(error).toMatchObject({ code: 'E_DATA_FORMAT' })
      refused.push(name)
    }
  }
  expect(refused.sort()).toEqual(refusals.sort())
  expect(fingerprints.size).toBe(1)
})
