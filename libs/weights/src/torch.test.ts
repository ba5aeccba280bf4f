import { zipSync } from 'fflate'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readWeights } from './index.ts'

const folder = mkdtempSync(path.join(tmpdir(), 'convoy-torch-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const zip = (members: Record<string, Buffer>, deflate = false) =>
  Buffer.from(zipSync(members, { level: deflate ? 6 : 0 }))

const text = (value: string) => `X${String.fromCharCode(value.length)}\0\0\0${value}`
const shape = (...sizes: number[]) => `(${sizes.map((n) => `K${String.fromCharCode(n)}`).join('')}t`
const tensor = (key: string, sizes: number[], strides: number[]) =>
  `ctorch._utils\n_rebuild_tensor_v2\n((${text('storage')}ctorch\nFloatStorage\n${text(key)}${text('cpu')}K\x01tQ` +
  `K\0${shape(...sizes)}${shape(...strides)}\x89ccollections\nOrderedDict\n)RtR`
const pickle = (body: string) => Buffer.from(`\x80\x02}(${body}u.`, 'latin1')
const floats = (...values: number[]) => Buffer.from(Float32Array.from(values).buffer)

function read(name: string, bytes: Buffer) {
  const file = path.join(folder, name)
  writeFileSync(file, bytes)
  return readWeights(file)
}
const refused = (message: RegExp) =>
  ({ code: 'E_WEIGHTS_FILE', message: expect.stringMatching(message) as string }) as const

describe('#readTorch', () => {
  const body = (strides: number[]) =>
    `${text('conv.weight')}${tensor('0', [2, 1, 1, 2], strides)}${text('conv.bias')}${tensor('1', [2], [1])}`

  it.each([
    ['contiguous', [2, 2, 2, 1], [1, 2, 3, 4]],
    ['with its axes exchanged', [1, 2, 2, 2], [1, 3, 2, 4]],
    ['expanded', [0, 0, 0, 1], [1, 2, 1, 2]],
  ])('reads a tensor that lies %s', async (_, strides, values) => {
    const members = {
      'a/data.pkl': pickle(body(strides)),
      'a/data/0': floats(1, 2, 3, 4),
      'a/data/1': floats(5, 6),
    }
    for (const deflate of [false, true]) {
      const { format, layers } = await read('a.pt', zip(members, deflate))
      expect(format).toBe('PyTorch state dict')
      expect(layers.map(({ name }) => name)).toEqual(['conv'])
      expect([...layers[0].tensors[0].values!]).toEqual(values)
      expect([...layers[0].tensors[1].values!]).toEqual([5, 6])
    }
  })

  it('refuses numbers that are cut off or not there', async () => {
    const members = { 'a/data.pkl': pickle(body([2, 2, 2, 1])), 'a/data/0': floats(1, 2, 3) }
    await expect(read('cut.pt', zip(members))).rejects.toMatchObject(refused(/conv\.weight is cut off/))
    const none = { 'a/data.pkl': members['a/data.pkl'] }
    await expect(read('none.pt', zip(none))).rejects.toMatchObject(
      refused(/numbers of conv\.weight are not in it/),
    )
  })

  it('refuses a bomb, whatever size it claims to have', async () => {
    const bomb = { 'a/data.pkl': Buffer.alloc(20_000_000) }
    await expect(read('bomb.pt', zip(bomb, true))).rejects.toMatchObject(
      refused(/would be 20000000 bytes unpacked/),
    )
    const liar = zip(bomb, true)
    liar.writeUInt32LE(100, liar.readUInt32LE(liar.length - 6) + 24)
    await expect(read('liar.pt', liar)).rejects.toMatchObject(refused(/cannot be unpacked/))
  })

  it('refuses numbers that are damaged', async () => {
    const members = { 'a/data.pkl': pickle(body([2, 2, 2, 1])), 'a/data/0': floats(1, 2, 3, 4) }
    const bytes = zip(members)
    bytes[bytes.indexOf(floats(3, 4))] ^= 1
    await expect(read('damaged.pt', bytes)).rejects.toMatchObject(refused(/a\/data\/0 of it .* CRC-32/))
  })

  it('refuses a tensor of more numbers than there is memory for', async () => {
    const sizes = [255, 255, 255, 255]
    const huge = `${text('w')}${tensor('0', sizes, [0, 0, 0, 0])}`
    const members = { 'a/data.pkl': pickle(huge), 'a/data/0': floats(1) }
    await expect(read('huge.pt', zip(members))).rejects.toMatchObject(refused(/tensors are more than/))
  })

  it.each([
    // torch.save(…, _use_new_zipfile_serialization=False): the pickled magic number 0x1950a86a20f9469cfc6c, then 1001.
    [
      'old.pt',
      '\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.',
      /old\.pt: it is PyTorch's format before 1\.6/,
    ],
    ['plain.pkl', '\x80\x04\x95\x06\0\0\0\0\0\0\0}\x94.', /it is Python's pickle/],
  ])('refuses %s, and says how to save it anew', async (name, bytes, message) => {
    await expect(read(name, Buffer.from(bytes, 'latin1'))).rejects.toMatchObject({
      ...refused(message),
      remedy: expect.stringContaining('torch.save(model.state_dict(), "weights.pt")') as string,
    })
  })

  it('refuses what is no weights file, and says what it is', async () => {
    const other: [string, Buffer, RegExp][] = [
      [
        'evil.pt',
        zip({ 'a/data.pkl': Buffer.from('\x80\x02cos\nsystem\n.', 'latin1') }),
        /would run os\.system/,
      ],
      ['lfs.h5', Buffer.from('version https://git-lfs.github.com/spec/v1\n'), /Git LFS pointer/],
      ['page.h5', Buffer.from('<!DOCTYPE html>'), /web page/],
      ['empty.pt', Buffer.alloc(0), /empty/],
      ['a.npz', zip({ 'a.npy': Buffer.alloc(3) }), /NumPy/],
      ['graph.json', Buffer.from('{"format":"graph-model","weightsManifest":[]}'), /graph model/],
    ]
    for (const [name, bytes, message] of other)
      await expect(read(name, bytes), name).rejects.toMatchObject(refused(message))
  })
})
