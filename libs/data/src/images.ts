import { asConvoyError, ConvoyError } from '@convoy/errors'
import type { Metadata, Sharp } from 'sharp'
import { isBitmap, readBitmap } from './bitmap.ts'
import { loadSharp } from './sharp.ts'
import { Room } from './source.ts'

/** Bytes that an image may take when it is decoded as a whole: 89 megapixels of RGB. */
const LARGEST = 2 ** 28
/** Images that are decoded as a whole share these; others are decoded by rows. */
const room = new Room(LARGEST)

/** What files that are no images are, by how they begin. */
const OTHERS: readonly (readonly [RegExp, string])[] = [
  [/^version https:\/\/git-lfs/, 'is a pointer of Git LFS and not the file: run `git lfs pull`'],
  [/^\s*<(!doctype html|html)/i, 'is a page of HTML, as servers send in place of a file'],
  [
    /^\s*(<\?xml[^>]*>\s*)?(<!--[^]*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg/i,
    'is an SVG, a drawing: convert it to PNG',
  ],
  [/^....ftyp(hei|hev|mif)/s, 'is a HEIC, which cannot be decoded here: convert it to JPEG'],
  [/^(\xff\n|....JXL )/s, 'is a JPEG XL, which cannot be decoded here: convert it to JPEG or PNG'],
  [/^%PDF/, 'is a PDF'],
  [/^8BPS/, 'is a Photoshop file: convert it to PNG'],
  [/^PK/, 'is a .zip'],
  [/^\0+$/, 'holds zeros only'],
]

/** What a file that should be another is, by how it begins in Latin-1: a page of HTML, a pointer of Git LFS, … */
export function otherThanAsked(start: string): string | undefined {
  return OTHERS.find(([pattern]) => pattern.test(start))?.[1]
}

/** An image as RGB bytes [size, size, 3]. */
export interface Decoded {
  readonly pixels: Buffer
  /** Parts of the file are damaged; what they should show was guessed. */
  readonly damaged: boolean
}

/**
 * Decodes an image to RGB bytes [size, size, 3]: turned as its EXIF orientation says, grey becomes RGB, transparency black, the
 * first frame or page is taken, and other sizes are resized.
 *
 * Throws an Error whose message says what is wrong with the file, to be put behind its name.
 */
export async function decode(bytes: Buffer, size: number): Promise<Decoded> {
  if (bytes.length === 0) throw new Error('is empty')
  const start = bytes.toString('latin1', 0, 512)
  const other = OTHERS.find(([pattern]) => pattern.test(start))
  // libvips reads some of those that are called HEIC: AVIF is of that family.
  const known = other && !/HEIC/.test(other[1])
  if (known) throw new Error(other[1])
  // It takes a tenth of a second to load, which a process that decodes nothing need not spend.
  const sharp = await loadSharp()
  if (isBitmap(bytes)) {
    const { data, ...raw } = readBitmap(bytes)
    return { pixels: await toPixels(sharp(data, { raw }), raw, size), damaged: false }
  }
  try {
    const metadata = await sharp(bytes).metadata()
    return await room.hold(wholeBytes(metadata), async () => {
      const attempt = (failOn: 'warning' | 'error') => toPixels(sharp(bytes, { failOn }), metadata, size)
      if (await isBlackFloat(sharp(bytes), metadata))
        throw new Error(
          'has floats of at most 1 as samples, which would all be black: convert it to 8 or 16 bits',
        )
      const clean = await attempt('warning').catch(() => undefined)
      return clean ? { pixels: clean, damaged: false } : { pixels: await attempt('error'), damaged: true }
    })
  } catch (error) {
    if (other) throw new Error(other[1], { cause: error })
    throw error
  }
}

/** The bytes that an image takes while it is decoded. Throws where they are too many. */
function wholeBytes({
  width,
  height,
  channels,
  depth,
  format,
  isProgressive,
  orientation,
}: Metadata): number {
  const sample = /double|complex/.test(depth) ? 8 : /int|float/.test(depth) ? 4 : /short/.test(depth) ? 2 : 1
  const bytes = width * height * channels * sample
  const byRows = (format === 'jpeg' || format === 'png') && !isProgressive && (orientation ?? 1) === 1
  if (byRows) return 2 ** 20
  if (bytes > LARGEST)
    throw new Error(`is ${width}×${height}, which takes ${(bytes / 2 ** 20).toFixed(0)} MB: make it smaller`)
  return bytes
}

/** Whether samples are floats from 0 to 1, where libvips takes 255 for white. */
async function isBlackFloat(image: Sharp, { depth }: Metadata): Promise<boolean> {
  if (!/float|double/.test(depth)) return false
  const { channels } = await image.stats()
  return channels.every(({ max }) => max <= 1)
}

async function toPixels(
  image: Sharp,
  { width, height, hasAlpha, orientation }: Pick<Metadata, 'width' | 'height'> & Partial<Metadata>,
  size: number,
): Promise<Buffer> {
  // Only where it turns something: a JPEG is no longer made smaller while it is read then, which gives other pixels.
  if (orientation !== undefined && orientation > 1) image.autoOrient()
  if (hasAlpha) image.flatten({ background: 'black' })
  if (width !== size || height !== size) image.resize(size, size, { fit: 'fill' })
  return image.toColourspace('srgb').raw().toBuffer()
}

/** What libvips says often, in words for those who do not know it. */
const SAID: readonly (readonly [RegExp, string])[] = [
  [/premature end|unexpected end|end of stream|truncated|ended prematurely/i, 'ends too early'],
  [/unsupported image format/i, 'is of no image format that is read'],
  [/pixel limit/i, 'has more pixels than are read'],
  // Errors of images that are decoded at the same time are one for libvips, which another may have taken.
  [/unknown error/i, 'is damaged'],
]

/** What is wrong with a file, in one line, to be put behind its name. */
export function reasonOf(error: unknown): string {
  // libvips says the same on several lines.
  const lines = new Set(
    asConvoyError(error)
      .message.trim()
      .split(/\s*\n\s*/),
  )
  const text = [...lines].join(' ').slice(0, 300)
  const said = SAID.find(([pattern]) => pattern.test(text))
  if (said) return said[1]
  return /^(is|has|holds|ends) /.test(text) ? text : `cannot be decoded: ${text}`
}

/** As `decode`. Throws E_DATA_IMAGE, naming the file. */
export async function decodeImage(bytes: Buffer, size: number, path: string): Promise<Buffer> {
  await loadSharp()
  try {
    return (await decode(bytes, size)).pixels
  } catch (error) {
    throw new ConvoyError('E_DATA_IMAGE', `${path} ${reasonOf(error)}`, 'Replace or remove the file.', {
      cause: error,
    })
  }
}
