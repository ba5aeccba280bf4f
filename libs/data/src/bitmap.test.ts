import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readBitmap } from './bitmap.ts'

/** A .bmp whose rows stand as given. */
function bmp(width: number, height: number, bits: number, palette: number[], rows: number[][]): Buffer {
  const stride = Math.ceil((width * bits) / 32) * 4
  const header = Buffer.alloc(54)
  const offset = 54 + palette.length
  header.write('BM')
  header.writeUInt32LE(offset, 10)
  header.writeUInt32LE(40, 14)
  header.writeInt32LE(width, 18)
  header.writeInt32LE(height, 22)
  header.writeUInt16LE(bits, 28)
  const padded = rows.map((row) => Buffer.concat([Buffer.from(row), Buffer.alloc(stride - row.length)]))
  return Buffer.concat([header, Buffer.from(palette), ...padded])
}

// Blue, green, red, unused.
const palette = [0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0]
const [red, green, blue] = [
  [255, 0, 0],
  [0, 255, 0],
  [0, 0, 255],
]

describe('readBitmap', () => {
  it.each([
    [
      '8 bits, bottom first',
      bmp(3, 2, 8, palette, [
        [0, 1, 2],
        [2, 2, 2],
      ]),
      [blue, blue, blue, red, green, blue],
    ],
    [
      '4 bits, odd width',
      bmp(3, 2, 4, palette, [
        [0x01, 0x20],
        [0x22, 0x10],
      ]),
      [blue, blue, green, red, green, blue],
    ],
    ['1 bit, top first', bmp(3, -1, 1, palette.slice(0, 8), [[0b01000000]]), [red, green, red]],
    [
      '24 bits, odd width',
      bmp(
        1,
        2,
        24,
        [],
        [
          [255, 0, 0],
          [0, 0, 255],
        ],
      ),
      [red, blue],
    ],
    ['32 bits', bmp(2, 1, 32, [], [[0, 0, 255, 9, 0, 255, 0, 9]]), [red, green]],
    ['16 bits', bmp(2, 1, 16, [], [[0x00, 0x7c, 0xe0, 0x03]]), [red, green]],
    ['PPM as text', Buffer.from('P3 # a comment\n2 1\n7 7 0 0\n 0 7 0\n'), [red, green]],
    ['PPM', Buffer.from('P6\n1 1\n255\n\xff\0\0', 'latin1'), [red]],
    ['PPM of 16 bits', Buffer.from('P6 1 1 65535 \xff\xff\0\0\0\0', 'latin1'), [red]],
  ])('reads %s', (_, bytes, pixels) => {
    expect([...readBitmap(bytes).data]).toEqual(pixels.flat())
  })

  it.each([
    ['PGM', Buffer.from('P5 2 1 100 \x64\x32', 'latin1'), [255, 128]],
    ['PBM', Buffer.from('P4 9 1\n\x80\x80', 'latin1'), [0, 255, 255, 255, 255, 255, 255, 255, 0]],
    ['PBM as text', Buffer.from('P1 3 1\n101'), [0, 255, 0]],
  ])('reads %s', (_, bytes, samples) => {
    const { channels, data } = readBitmap(bytes)
    expect([channels, ...data]).toEqual([1, ...samples])
  })

  it.each([
    ['cut off', bmp(3, 2, 8, palette, [[0, 1, 2]]), /ends too early/],
    ['with a header alone', Buffer.from('BM'), /ends too early/],
    ['of a color that its palette lacks', bmp(1, 1, 8, palette, [[7]]), /color 7, which its palette lacks/],
    ['that is far too large', bmp(30_000, 30_000, 24, [], []), /30000×30000, which is too large/],
    ['of no size', Buffer.from('P5 0 7 255 '), /0×7/],
    ['that is no Netpbm file', Buffer.from('P5 a'), /no Netpbm/],
  ])('refuses one %s', (_, bytes, message) => {
    expect(() => readBitmap(bytes)).toThrow(message)
  })

  it('refuses damaged files with an Error that says why, and reads nothing beyond them', () => {
    const whole = bmp(3, 2, 8, palette, [
      [0, 1, 2],
      [2, 2, 2],
    ])
    fc.assert(
      fc.property(fc.nat(whole.length - 1), fc.nat(255), fc.nat(whole.length), (at, value, length) => {
        const bytes = Buffer.from(whole.subarray(0, length))
        if (at > 1 && at < length) bytes[at] = value
        if (bytes.length < 2) return
        try {
          const { width, height, data } = readBitmap(bytes)
          expect(data).toHaveLength(width * height * 3)
        } catch (error) {
          expect((error as Error).message).toMatch(/^(is|has|ends) /)
        }
      }),
    )
  })
})
