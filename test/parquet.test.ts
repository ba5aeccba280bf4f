import { parquetWriteBuffer, type SchemaElement } from 'hyparquet-writer'
import { writeFileSync } from 'node:fs'
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

it('a Parquet file gives the same weights whoever computes', async () => {
  const rows = Array.from({ length: 40 }, (_, i) => i)
  const images = await Promise.all(
    rows.map(async (i) => {
      const pixels = Buffer.from(Array.from({ length: 3072 }, (_, j) => (i * j * 7 + i) % 251))
      const raw = { width: 32, height: 32, channels: 3 } as const
      return { bytes: await sharp(pixels, { raw }).png().toBuffer(), path: `${i}.png` }
    }),
  )
  const columnData = [
    { name: 'img', data: images },
    { name: 'label', data: rows.map((i) => BigInt(i % 2)) },
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
