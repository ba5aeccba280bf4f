import { zipSync, type Zippable } from 'fflate'
import {
  cpSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { execFileSync } from 'node:child_process'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import sharp from 'sharp'
import { create } from 'tar'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Dataset } from './dataset.ts'
import { decodeImage } from './images.ts'
import { loadDataset, type LoadOptions } from './load.ts'
import { describeDataset } from './statistics.ts'

/** Data sets as people have them, each made of a plain one: two classes, two training images and one test image each. */

let home: string
let root: string
const noise = Buffer.from(Array.from({ length: 48 * 48 * 3 }, (_, i) => (i * 7919) % 251))
const image = () => sharp(noise, { raw: { width: 48, height: 48, channels: 3 } })
beforeAll(async () => {
  home = mkdtempSync(path.join(tmpdir(), 'convoy-odd-'))
  for (const [n, file] of [
    'train/a/1',
    'train/a/2',
    'train/b/1',
    'train/b/2',
    'test/a/1',
    'test/b/1',
  ].entries()) {
    mkdirSync(path.join(home, 'plain', path.dirname(file)), { recursive: true })
    await image()
      .modulate({ brightness: 1 - n / 20 })
      .png()
      .toFile(path.join(home, 'plain', `${file}.png`))
  }
})
afterAll(() => rmSync(home, { recursive: true }))
beforeEach(() => {
  root = path.join(home, 'set')
  cpSync(path.join(home, 'plain'), root, { recursive: true })
})
afterEach(() => rmSync(root, { recursive: true, force: true }))

const load = (source: string, more: LoadOptions = {}) =>
  loadDataset(source, { cacheDirectory: path.join(home, 'cache'), environment: {}, ...more })
const counts = (dataset: Dataset) => {
  const { classes, trainCounts, testCounts } = describeDataset(dataset)
  return Object.fromEntries(classes.map((label, i) => [label, [trainCounts[i], testCounts[i]]]))
}
const at = (name: string) => path.join(root, name)
const put = (name: string, bytes: string | Uint8Array) => {
  mkdirSync(path.dirname(at(name)), { recursive: true })
  writeFileSync(at(name), bytes)
}
const copy = (from: string, to: string) => put(to, readFileSync(at(from)))
const tarred = (name = 'set.tar', ...what: string[]) => {
  const file = path.join(home, name)
  // At once: tar 7.5.23 sometimes waits for ever where it packs hard links piece by piece.
  create(
    { file, cwd: root, gzip: name.endsWith('gz'), sync: true },
    what.length > 0 ? what : ['train', 'test'],
  )
  return file
}
const zipped = (content: Zippable, name = 'set.zip') => {
  const file = path.join(home, name)
  writeFileSync(file, zipSync(content))
  return file
}
const refusal = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) as string }) as unknown

/** A TIFF of 2×2 floats, which are 0 but for one. */
function floatTiff(most: number): Buffer {
  const fields = [
    [256, 2],
    [257, 2],
    [258, 32],
    [259, 1],
    [262, 1],
    [273, 8],
    [277, 1],
    [278, 2],
    [279, 16],
    [339, 3],
  ]
  const bytes = Buffer.alloc(8 + 16 + 2 + 12 * fields.length + 4)
  bytes.write('II*\0', 'latin1')
  bytes.writeUInt32LE(24, 4)
  bytes.writeFloatLE(most, 8)
  bytes.writeUInt16LE(fields.length, 24)
  fields.forEach(([tag, value], i) => {
    const at = 26 + 12 * i
    bytes.writeUInt16LE(tag, at)
    bytes.writeUInt16LE(4, at + 2)
    bytes.writeUInt32LE(1, at + 4)
    bytes.writeUInt32LE(value, at + 8)
  })
  return bytes
}

describe('nothing is lost without a word:', () => {
  it('folders of classes that are links, under their own names (D1)', async () => {
    for (const split of ['train', 'test']) {
      renameSync(at(`${split}/b`), at(`elsewhere-${split}`))
      symlinkSync(at(`elsewhere-${split}`), at(`${split}/b`))
    }
    expect(counts(await load(root))).toEqual({ a: [2, 1], b: [2, 1] })
  })

  it('links that lead nowhere, or in a circle, are refused by name', async () => {
    symlinkSync('/no/such/place', at('train/c'))
    await expect(load(root)).rejects.toEqual(refusal('E_DATA_FORMAT', /train\/c .* leads nowhere/))
    rmSync(at('train/c'))
    symlinkSync(at('train'), at('train/a/again'))
    await expect(load(root)).rejects.toEqual(
      refusal('E_DATA_FORMAT', /again is a link to a folder that it is in/),
    )
  })

  it('hidden folders are no classes, and are told (D2)', async () => {
    for (const name of ['.ipynb_checkpoints', '@eaDir']) copy('train/a/1.png', `train/${name}/1.png`)
    for (const source of [root, tarred()]) {
      const dataset = await load(source)
      expect(counts(dataset)).toEqual({ a: [2, 1], b: [2, 1] })
      expect(dataset.notes).toEqual([expect.stringMatching(/\.ipynb_checkpoints, train\/@eaDir$/)])
    }
  })

  it('images in folders within a class are of the class (D3)', async () => {
    copy('train/a/1.png', 'train/a/more/still/3.png')
    for (const source of [root, tarred()])
      expect(counts(await load(source))).toEqual({ a: [3, 1], b: [2, 1] })
  })

  it('hard and symbolic links of a .tar are the files that they lead to (D4)', async () => {
    linkSync(at('train/a/1.png'), at('train/a/x.png'))
    linkSync(at('train/a/1.png'), at('train/b/y.png'))
    symlinkSync('1.png', at('train/b/z.png'))
    const dataset = await load(tarred())
    expect(counts(dataset)).toEqual({ a: [3, 1], b: [4, 1] })
    expect(dataset.fingerprint).toBe((await load(root)).fingerprint)
    symlinkSync('nothing.png', at('train/b/lost.png'))
    await expect(load(tarred())).rejects.toEqual(
      refusal('E_DATA_IMAGE', /lost\.png is a link to train\/b\/nothing/),
    )
  })

  it('files of other kinds are counted, also from the cache (D10)', async () => {
    for (const name of ['1.heic', '2.HEIC', '3.jxl', 'none']) put(`train/a/${name}`, 'x')
    for (const name of ['4.jfif', '5.jpe']) put(`train/a/${name}`, await image().jpeg().toBuffer())
    for (let i = 0; i < 2; i++) {
      const dataset = await load(root)
      expect(counts(dataset)).toEqual({ a: [4, 1], b: [2, 1] })
      expect(dataset.notes).toEqual([
        expect.stringMatching(/^4 files are left out.*: 2 \.heic, 1 \.jxl, 1 without extension$/),
      ])
    }
    put('train/c/1.heic', 'x')
    await expect(load(root)).rejects.toEqual(
      refusal('E_DATA_EMPTY_CLASS', /train\/c .* has no images, but 1 \.heic/),
    )
  })

  it('images that are black are told, and floats up to 1 refused (D12)', async () => {
    const dim = Uint16Array.from({ length: 100 }, (_, i) => 40 * i)
    const grey16 = sharp(dim, { raw: { width: 10, height: 10, channels: 1 } }).toColourspace('grey16')
    put('train/a/12-bits.png', await grey16.png().toBuffer())
    put(
      'train/b/plain.png',
      await sharp({ create: { width: 9, height: 9, channels: 3, background: 'red' } })
        .png()
        .toBuffer(),
    )
    const { notes } = await load(root)
    expect(notes).toEqual([
      expect.stringMatching(
        /^2 images are of one colour or nearly black .*12-bits\.png, train\/b\/plain\.png$/,
      ),
    ])
    put('train/a/float.tiff', floatTiff(0.5))
    await expect(load(root)).rejects.toEqual(refusal('E_DATA_IMAGE', /float\.tiff has floats of at most 1/))
    put('train/a/float.tiff', floatTiff(200))
    expect((await load(root)).notes).toHaveLength(1)
  })

  it('one class is not enough (T8)', async () => {
    for (const split of ['train', 'test']) rmSync(at(`${split}/b`), { recursive: true })
    await expect(load(root)).rejects.toEqual(refusal('E_DATA_FORMAT', /one class alone, a/))
  })
})

describe('what is no image', () => {
  it('is named all at once, with what it is; --skip-unreadable trains without (D7, D8)', async () => {
    put('train/a/empty.jpg', '')
    put('train/a/lfs.jpg', 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n')
    put('train/b/page.jpg', '<!DOCTYPE html><html></html>')
    put('train/b/drawing.png', '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    put('test/b/cut.jpg', (await image().jpeg().toBuffer()).subarray(0, 900))
    await expect(load(root)).rejects.toEqual(
      refusal(
        'E_DATA_IMAGE',
        // Of images that fail at the same time, libvips may give another the words.
        /^5 of 11 images cannot be read \(2 of a, 3 of b\):[^]*cut\.jpg (ends too early|is damaged)[^]*empty\.jpg is empty[^]*lfs\.jpg .*git lfs pull[^]*drawing\.png is an SVG[^]*page\.jpg is a page of HTML/,
      ),
    )
    const plain = await load(path.join(home, 'plain'))
    for (const source of [root, tarred('set.tgz')]) {
      const dataset = await load(source, { skipUnreadable: true })
      expect(dataset.fingerprint).toBe(plain.fingerprint)
      expect(dataset.skipped).toHaveLength(5)
      expect(dataset.notes).toEqual([
        expect.stringMatching(/^5 of 11 images cannot be read .* and are left out$/),
      ])
      await expect(load(source)).rejects.toMatchObject({ code: 'E_DATA_IMAGE' })
    }
    for (const name of ['1.png', '2.png']) rmSync(at(`train/a/${name}`))
    await expect(load(root, { skipUnreadable: true })).rejects.toEqual(
      refusal('E_DATA_EMPTY_CLASS', /train\/a/),
    )
  })

  it('but decodes in part is told', async () => {
    const bytes = await image().jpeg({ quality: 90 }).toBuffer()
    // A marker in the midst of the image: libjpeg goes on behind it, with a warning.
    bytes.set([0xff, 0xd3], bytes.length - 300)
    put('train/a/spoilt.jpg', bytes)
    expect((await load(root)).notes).toEqual(['1 image is damaged, but decoded: train/a/spoilt.jpg'])
  })

  it('nor a file: folders, lost links, pipes and sockets called like images (D21)', async () => {
    mkdirSync(at('train/a/folder.png'))
    expect(counts(await load(root))).toEqual({ a: [2, 1], b: [2, 1] })
    symlinkSync('/no/such.png', at('train/a/lost.png'))
    execFileSync('mkfifo', [at('train/a/pipe.png')])
    const server = createServer()
    await new Promise<void>((listening) => server.listen(at('train/a/socket.png'), listening))
    await expect(load(root)).rejects.toEqual(
      refusal(
        'E_DATA_IMAGE',
        /lost\.png is a link that leads nowhere[^]*pipe\.png is no regular file[^]*socket\.png is no/,
      ),
    )
    server.close()
  })
})

describe('images', () => {
  it('are BMP and Netpbm, too, whatever they are called (D9)', async () => {
    const pixels = Buffer.alloc(3 * 12 * 12).map((_, i) => (i * 53) % 256)
    const ppm = Buffer.concat([Buffer.from('P6 12 12 255\n'), pixels])
    const png = await sharp(pixels, { raw: { width: 12, height: 12, channels: 3 } })
      .png()
      .toBuffer()
    put('train/a/x.ppm', ppm)
    put('train/a/y.jpg', ppm)
    expect(counts(await load(root))).toEqual({ a: [4, 1], b: [2, 1] })
    expect(await decodeImage(ppm, 8, 'x')).toEqual(await decodeImage(png, 8, 'x'))
  })

  it('are turned as EXIF says (D11)', async () => {
    const wide = await sharp(Buffer.from([255, 0, 0, 0, 0, 255]), {
      raw: { width: 2, height: 1, channels: 3 },
    })
      .resize(32, 16, { kernel: 'nearest', fit: 'fill' })
      .withMetadata({ orientation: 6 })
      .png()
      .toBuffer()
    const pixels = await decodeImage(wide, 16, 'x')
    // Red was left; a quarter turn clockwise has it at the top.
    expect(pixels[0]).toBeGreaterThan(200)
    expect(pixels[3 * 16 * 15 + 2]).toBeGreaterThan(200)
    expect(pixels[3 * 15]).toBeGreaterThan(200)
  })
})

describe('splits', () => {
  it.each(['val', 'valid', 'validation', 'Test'])('called %s are test sets (D18)', async (name) => {
    renameSync(at('test'), at(name))
    expect((await load(root)).fingerprint).toBe((await load(path.join(home, 'plain'))).fingerprint)
  })

  it('may be missing where some images are held out, as many of each class', async () => {
    rmSync(at('test'), { recursive: true })
    const refused = refusal('E_DATA_FORMAT', /no images under test.* but 4 to train on/)
    await expect(load(root)).rejects.toEqual(refused)
    await expect(load(at('train'))).rejects.toEqual(refused)
    for (const source of [root, at('train'), tarred('alone.tar', 'train')])
      expect(counts(await load(source, { holdOut: 2 }))).toEqual({ a: [1, 1], b: [1, 1] })
  })

  it('need no test images of a rare class with --hold-out (D17)', async () => {
    rmSync(at('test/b'), { recursive: true })
    await expect(load(root)).rejects.toEqual(refusal('E_DATA_EMPTY_CLASS', /test\/b/))
    expect(counts(await load(root, { holdOut: 2 }))).toEqual({ a: [1, 1], b: [1, 1] })
  })
})

describe('archives', () => {
  const files = () =>
    Object.fromEntries(
      ['train/a/1', 'train/a/2', 'train/b/1', 'train/b/2', 'test/a/1', 'test/b/1'].map((name) => [
        `${name}.png`,
        new Uint8Array(readFileSync(at(`${name}.png`))),
      ]),
    )

  it('are zips as well, of macOS and of Python (D19), and Hugging Face keeps data/ around the splits', async () => {
    const { fingerprint } = await load(root)
    const junk = {
      '__MACOSX/train/a/._1.png': new Uint8Array(9),
      'train/.DS_Store': new Uint8Array(3),
      'train/': new Uint8Array(),
    }
    const dataset = await load(zipped({ ...files(), ...junk }))
    expect(dataset.fingerprint).toBe(fingerprint)
    expect(dataset.notes).toEqual([expect.stringMatching(/: __MACOSX, train\/\.DS_Store$/)])
    const around = zipped({ repository: { data: files(), 'README.md': new Uint8Array(1) } }, 'around.zip')
    expect((await load(around)).fingerprint).toBe(fingerprint)
    // A zip that holds links, as `zip -y` makes them.
    const attrs = (0o120777 << 16) >>> 0
    const link = zipped(
      { ...files(), 'train/b/3.png': [Buffer.from('../a/1.png'), { os: 3, attrs }] },
      'links.zip',
    )
    expect(counts(await load(link))).toEqual({ a: [2, 1], b: [3, 1] })
  })

  it('may have the splits at any depth, and absolute names (D5)', async () => {
    const { fingerprint } = await load(root)
    const file = path.join(home, 'deep.tar')
    await create({ file, cwd: home, prefix: './x/y' }, ['set/train', 'set/test'])
    expect((await load(file)).fingerprint).toBe(fingerprint)
    await create({ file, cwd: home, preservePaths: true }, [at('train'), at('test')])
    expect((await load(file)).fingerprint).toBe(fingerprint)
    await create({ file, cwd: home }, ['set/train', 'set/test', 'plain/train', 'plain/test'])
    await expect(load(file)).rejects.toEqual(refusal('E_DATA_FORMAT', /several data sets: plain\/, set\//))
  })

  it('of other kinds are named, with what unpacks them', async () => {
    const file = path.join(home, 'set.tar.xz')
    writeFileSync(file, Buffer.from('fd377a585a000000', 'hex'))
    await expect(load(file)).rejects.toEqual(refusal('E_DATA_FORMAT', /is a \.xz/))
  })

  it('that are cut off are refused', async () => {
    const whole = readFileSync(zipped(files()))
    const file = path.join(home, 'cut.zip')
    writeFileSync(file, whole.subarray(0, whole.length / 2))
    await expect(load(file)).rejects.toEqual(refusal('E_DATA_TRUNCATED', /ends too early/))
  })

  it('may be CIFAR-100, of which the fine labels count', async () => {
    const record = (coarse: number, fine: number) =>
      Buffer.concat([Buffer.from([coarse, fine]), Buffer.alloc(3072, fine)])
    const names = Array.from({ length: 100 }, (_, i) => `class ${i}`).join('\n')
    put('cifar-100-binary/train.bin', Buffer.concat([record(1, 99), record(2, 7)]))
    put('cifar-100-binary/test.bin', record(3, 5))
    put('cifar-100-binary/fine_label_names.txt', `${names}\n`)
    const folder = at('cifar-100-binary')
    for (const source of [folder, tarred('cifar-100-binary.tar.gz', 'cifar-100-binary')]) {
      const { name, classes, train, test } = await load(source)
      expect([name, classes.length, classes[7]]).toEqual(['cifar100', 100, 'class 7'])
      expect([...train.labels, ...test.labels]).toEqual([99, 7, 5])
      expect([...train.pixels.subarray(3071, 3074)]).toEqual([99, 7, 7])
    }
    rmSync(path.join(folder, 'test.bin'))
    await expect(load(folder)).rejects.toEqual(refusal('E_DATA_FORMAT', /lacks test\.bin/))
  })
})
