import { Zip, ZipPassThrough } from 'fflate'
import { appendFileSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { crc32, createDeflate, deflateRawSync } from 'node:zlib'
import { create } from 'tar'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { loadDataset } from './load.ts'

/** Files that are small and want much memory. The process that runs these tests, their making included, stays under 500 MB. */

let home: string
beforeAll(() => {
  home = mkdtempSync(path.join(tmpdir(), 'convoy-bombs-'))
})
afterAll(() => rmSync(home, { recursive: true }))
afterEach(() => {
  // In KB.
  expect(process.resourceUsage().maxRSS / 1024).toBeLessThan(500)
})

const load = (source: string) =>
  loadDataset(source, { cacheDirectory: path.join(home, 'cache'), environment: {} })
const MEGABYTE = new Uint8Array(2 ** 20)
const zeros = new Uint8Array(100 * MEGABYTE.length)
/** A name for each class of each split, the last of which is what is looked at. */
const names = ['test/a/1.png', 'test/b/1.png', 'train/b/1.png', 'train/a/1.png']

/** A PNG of one bit a pixel, all black. */
async function png(side: number): Promise<Buffer> {
  const rows = Math.ceil((side * (1 + Math.ceil(side / 8))) / MEGABYTE.length)
  const data = await buffer(Readable.from(Array.from({ length: rows }, () => MEGABYTE)).pipe(createDeflate()))
  const header = Buffer.alloc(13)
  header.writeUInt32BE(side, 0)
  header.writeUInt32BE(side, 4)
  header[8] = 1
  const chunk = (type: string, content: Buffer) => {
    const length = Buffer.alloc(4)
    length.writeUInt32BE(content.length)
    const body = Buffer.concat([Buffer.from(type), content])
    const sum = Buffer.alloc(4)
    sum.writeUInt32BE(crc32(body))
    return Buffer.concat([length, body, sum])
  }
  const signature = Buffer.from('89504e470d0a1a0a', 'hex')
  return Buffer.concat([
    signature,
    chunk('IHDR', header),
    chunk('IDAT', data),
    chunk('IEND', Buffer.alloc(0)),
  ])
}

/** An entry that zlib packs: fflate's own deflate takes minutes for so much on a busy machine. */
class NativeDeflate extends ZipPassThrough {
  override compression = 8
  protected override process(chunk: Uint8Array, final: boolean): void {
    this.ondata(null, deflateRawSync(chunk, { level: 1 }), final)
  }
}

/** A zip of files of zeros, by their sizes in MB. */
function zipOf(name: string, sizes: Record<string, number>): string {
  const file = path.join(home, name)
  writeFileSync(file, '')
  const zip = new Zip((error, part) => {
    if (error) throw error
    appendFileSync(file, part)
  })
  for (const [name, size] of Object.entries(sizes)) {
    const entry = new NativeDeflate(name)
    zip.add(entry)
    entry.push(zeros.subarray(0, size * MEGABYTE.length), true)
  }
  zip.end()
  return file
}

describe('refused, in little memory, is', () => {
  it('an image of 30,000 × 30,000 pixels in 0.1 MB', async () => {
    const bytes = await png(30_000)
    expect(bytes.length).toBeLessThan(1e6)
    for (const name of names) {
      mkdirSync(path.join(home, 'large', path.dirname(name)), { recursive: true })
      writeFileSync(path.join(home, 'large', name), bytes)
    }
    await expect(load(path.join(home, 'large'))).rejects.toMatchObject({
      code: 'E_DATA_IMAGE',
      message: expect.stringMatching(/4 of 4 images .* has more pixels than are read/s) as string,
    })
  })

  it('a zip of files that are large when they are unpacked, one beyond the limit', async () => {
    const sizes = Object.fromEntries(names.map((name, i) => [name, i === 3 ? 100 : 60]))
    await expect(load(zipOf('bomb.zip', sizes))).rejects.toMatchObject({
      code: 'E_DATA_IMAGE',
      message: expect.stringMatching(
        /a\/1\.png holds zeros only.*train\/a\/1\.png has 100 MB; up to 96/s,
      ) as string,
    })
  })

  it('a .tar.gz likewise, and one of far too large .bin files', async () => {
    for (const [i, name] of [...names, 'data_batch_1.bin', 'test_batch.bin'].entries()) {
      const file = path.join(home, 'zeros', name)
      mkdirSync(path.dirname(file), { recursive: true })
      writeFileSync(file, '')
      truncateSync(file, (i === 3 ? 120 : i > 3 ? 150 : 60) * 2 ** 20)
    }
    const file = path.join(home, 'bomb.tar.gz')
    const options = { file, cwd: path.join(home, 'zeros'), gzip: { level: 1 } }
    await create(options, ['train', 'test'])
    await expect(load(file)).rejects.toMatchObject({ code: 'E_DATA_IMAGE' })
    await create(options, ['data_batch_1.bin', 'test_batch.bin'])
    await expect(load(file)).rejects.toMatchObject({
      code: 'E_DATA_FORMAT',
      message: expect.stringMatching(/315 MB; those of CIFAR have 184/) as string,
    })
  })

  it.each(['zip', 'tar'])('a .%s with names that lead out of it', async (kind) => {
    const file = kind === 'zip' ? zipOf('out.zip', { '../../train/a/1.png': 1 }) : path.join(home, 'out.tar')
    if (kind === 'tar') {
      mkdirSync(path.join(home, 'within'), { recursive: true })
      writeFileSync(path.join(home, 'x.png'), 'x')
      await create({ file, cwd: path.join(home, 'within'), preservePaths: true }, ['../x.png'])
    }
    await expect(load(file)).rejects.toMatchObject({
      code: 'E_DATA_FORMAT',
      message: expect.stringMatching(/\.\.\//) as string,
    })
  })
})
