/**
 * The formats that libvips's prebuilt binaries cannot read: BMP and Netpbm (PBM, PGM, PPM). The packages that read BMP take
 * palettes of 4 and 8 bits, odd widths or an offset of the pixels wrong without a word (bmp-ts 1.0.9, fast-bmp 4.0.1).
 */

/** An image's samples, in rows from the top. */
export interface Raw {
  readonly width: number
  readonly height: number
  readonly channels: 1 | 3 | 4
  readonly data: Uint8Array
}

/** Samples that an image may have. */
const LARGEST = 2 ** 28

function checkSize(width: number, height: number, channels: number): void {
  if (width < 1 || height < 1) throw new Error(`is said to be ${width}×${height}`)
  if (width * height * channels > LARGEST)
    throw new Error(`is said to be ${width}×${height}, which is too large`)
}

/** Whether bytes are of a format that is read here. */
export function isBitmap(bytes: Buffer): boolean {
  return bytes.toString('latin1', 0, 2) === 'BM' || /^P[1-6]\s/.test(bytes.toString('latin1', 0, 3))
}

/** Reads a BMP or Netpbm file. Throws an Error that says why it cannot. */
export function readBitmap(bytes: Buffer): Raw {
  try {
    return bytes[0] === 0x42 ? readBmp(bytes) : readNetpbm(bytes)
  } catch (error) {
    if (error instanceof RangeError) throw new Error('ends too early', { cause: error })
    throw error
  }
}

/** How a BMP stores a sample: shifted, and with so many values. */
const maskOf = (mask: number) => {
  const shift = mask === 0 ? 0 : 31 - Math.clz32(mask & -mask)
  const most = mask >>> shift
  return (pixel: number) => (most === 0 ? 0 : Math.round((((pixel & mask) >>> shift) * 255) / most))
}

/** Microsoft's bitmap: 1, 4, 8, 16, 24 or 32 bits a pixel, from the bottom or the top, not compressed. */
function readBmp(bytes: Buffer): Raw {
  const offset = bytes.readUInt32LE(10)
  const header = bytes.readUInt32LE(14)
  if (header < 40) throw new Error('is a BMP of OS/2, which is not read: convert it to PNG')
  const [width, signed] = [bytes.readInt32LE(18), bytes.readInt32LE(22)]
  const height = Math.abs(signed)
  const [bits, compression] = [bytes.readUInt16LE(28), bytes.readUInt32LE(30)]
  if (![1, 4, 8, 16, 24, 32].includes(bits) || ![0, 3, 6].includes(compression))
    throw new Error(
      `is a BMP of ${bits} bits, compressed by method ${compression}, which is not read: convert it to PNG`,
    )
  checkSize(width, height, 3)
  const stride = Math.ceil((width * bits) / 32) * 4
  if (offset + stride * height > bytes.length) throw new Error('ends too early')
  const masked = compression !== 0
  const [red, green, blue] = (
    masked
      ? [54, 58, 62].map((at) => bytes.readUInt32LE(at))
      : bits === 16
        ? [0x7c00, 0x3e0, 0x1f]
        : [0xff0000, 0xff00, 0xff]
  ).map(maskOf)
  const palette = 14 + header
  const data = new Uint8Array(width * height * 3)
  for (let y = 0; y < height; y++) {
    const row = offset + stride * (signed < 0 ? y : height - 1 - y)
    for (let x = 0; x < width; x++) {
      const into = (y * width + x) * 3
      if (bits <= 8) {
        const index = (bytes[row + ((x * bits) >> 3)] >> (8 - bits - ((x * bits) & 7))) & ((1 << bits) - 1)
        const color = palette + 4 * index
        if (color + 4 > offset) throw new Error(`has a pixel of color ${index}, which its palette lacks`)
        data[into] = bytes[color + 2]
        data[into + 1] = bytes[color + 1]
        data[into + 2] = bytes[color]
      } else {
        const pixel = bytes.readUIntLE(row + (x * bits) / 8, bits / 8)
        data[into] = red(pixel)
        data[into + 1] = green(pixel)
        data[into + 2] = blue(pixel)
      }
    }
  }
  return { width, height, channels: 3, data }
}

/** Netpbm: P1 to P3 are text, P4 to P6 binary; one bit, grey, RGB. Samples of 16 bits become 8. */
function readNetpbm(bytes: Buffer): Raw {
  const kind = bytes[1] - 0x30
  let at = 2
  const number = (digits = /^\d+/) => {
    // Numbers stand between white space and comments.
    for (;;) {
      const [skipped] = /^(\s|#[^\n]*\n)*/.exec(bytes.toString('latin1', at, at + 256))!
      at += skipped.length
      if (skipped.length < 256) break
    }
    const [found] = digits.exec(bytes.toString('latin1', at, at + 16)) ?? []
    if (found === undefined) throw new Error('ends too early, or is no Netpbm file')
    at += found.length
    return Number(found)
  }
  const [width, height] = [number(), number()]
  const most = kind === 1 || kind === 4 ? 1 : number()
  const channels = kind === 3 || kind === 6 ? 3 : 1
  checkSize(width, height, channels)
  if (most < 1 || most > 65_535) throw new Error(`has samples of up to ${most}`)
  const count = width * height * channels
  const wide = most > 255 ? 2 : 1
  const stride = kind === 4 ? Math.ceil(width / 8) : width * channels * wide
  // White space ends the header; a text has at least a digit a sample.
  if (kind > 3) at++
  if (bytes.length - at < (kind > 3 ? stride * height : count)) throw new Error('ends too early')
  const data = new Uint8Array(count)
  const scaled = (sample: number) => Math.round((Math.min(sample, most) * 255) / most)
  for (let i = 0; i < count; i++) {
    if (kind === 4) {
      const [y, x] = [Math.floor(i / width), i % width]
      data[i] = (bytes[at + y * stride + (x >> 3)] >> (7 - (x & 7))) & 1 ? 0 : 255
    } else if (kind > 3) data[i] = scaled(bytes.readUIntBE(at + i * wide, wide))
    else data[i] = kind === 1 ? 255 * (1 - number(/^[01]/)) : scaled(number())
  }
  return { width, height, channels, data }
}
