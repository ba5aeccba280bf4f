import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import sharp from 'sharp'
import { afterAll, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** Two classes of images, in folders of their own or in a table; the names are in the same order. */
async function lay(name: string, inTable: boolean): Promise<string> {
  const rows = ['file_name,label']
  for (let i = 0; i < 40; i++) {
    const split = i % 4 === 0 ? 'test' : 'train'
    const label = i < 20 ? 'ant' : 'bee'
    const file = `${split}/${label}${inTable ? '-' : '/'}${100 + i}.png`
    const to = path.join(folder, name, file)
    mkdirSync(path.dirname(to), { recursive: true })
    const pixels = Buffer.from(Array.from({ length: 3072 }, (_, j) => (i * j * 7 + i) % 251))
    await sharp(pixels, { raw: { width: 32, height: 32, channels: 3 } })
      .png()
      .toFile(to)
    rows.push(`${file},${label}`)
  }
  if (inTable) writeFileSync(path.join(folder, name, 'metadata.csv'), rows.join('\n'))
  return path.join(folder, name)
}

it('classes in a table give the weights that classes in folders give, whoever computes', async () => {
  const train = async (data: string, workers: string) => {
    const run = new Convoy([
      ...[
        'train',
        '--data',
        data,
        '--width',
        '0.125',
        '--batch-size',
        '16',
        '--micro-batch',
        '4',
        '--epochs',
        '2',
      ],
      ...['--workers', workers, '--runs', folder, '--name', path.basename(data), '--port', '0', '--json'],
    ])
    return (await run.done())['parametersSha256']
  }
  const sum = await train(await lay('folders', false), '1')
  expect(sum).toMatch(/^[0-9a-f]{64}$/)
  expect(await train(await lay('table', true), '2')).toBe(sum)
})
