import { ConvoyError } from '@convoy/errors'
import { makeDataset, type Dataset, type Split } from './dataset.ts'
import { loadSharp } from './sharp.ts'

/** An image that belongs to a class of a split. */
export interface LabelledFile {
  readonly split: 'train' | 'test'
  readonly label: string
  /** As shown in errors. */
  readonly path: string
  /** Its bytes, or reads them. */
  readonly read: () => Promise<Buffer>
}

/** Images decoded at a time: enough to keep libvips's threads busy. */
const AT_ONCE = 16

const IMAGE = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|ppm|pgm)$/i

/** Whether a file's name is that of an image. */
export function isImageName(name: string): boolean {
  return IMAGE.test(name)
}

/** Takes `…/train/<class>/<image>` apart; undefined where a path is not of that form. */
export function parseImagePath(path: string): { split: 'train' | 'test'; label: string } | undefined {
  const parts = path.split('/')
  const [split, label, name] = parts.slice(-3)
  if (parts.length < 3 || parts.length > 4 || !name || !IMAGE.test(name) || name.startsWith('.'))
    return undefined
  return split === 'train' || split === 'test' ? { split, label: label } : undefined
}

/**
 * Decodes an image to RGB bytes [size, size, 3]: grey becomes RGB, transparency black, other sizes are resized. Throws
 * E_DATA_IMAGE, naming the file.
 */
export async function decodeImage(bytes: Buffer, size: number, path: string): Promise<Buffer> {
  // libvips takes a tenth of a second to load, which a process that decodes nothing need not spend.
  const sharp = await loadSharp()
  try {
    const image = sharp(bytes, { failOn: 'error' })
    const { width, height, hasAlpha } = await image.metadata()
    if (hasAlpha) image.flatten({ background: 'black' })
    if (width !== size || height !== size) image.resize(size, size, { fit: 'fill' })
    return await image.toColourspace('srgb').raw().toBuffer()
  } catch (error) {
    throw new ConvoyError(
      'E_DATA_IMAGE',
      // libvips says the same on several lines.
      `${path} cannot be decoded: ${[...new Set((error as Error).message.trim().split(/\s*\n\s*/))].join(' ')}`,
      'Replace or remove the file.',
      { cause: error },
    )
  }
}

async function decodeSplit(
  files: readonly LabelledFile[],
  classes: readonly string[],
  size: number,
  tick: () => void,
): Promise<Split> {
  const volume = size * size * 3
  const pixels = new Uint8Array(files.length * volume)
  const labels = new Int32Array(files.length)
  let next = 0
  const worker = async () => {
    for (let i = next++; i < files.length; i = next++) {
      const file = files[i]
      pixels.set(await decodeImage(await file.read(), size, file.path), i * volume)
      labels[i] = classes.indexOf(file.label)
      tick()
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return { count: files.length, pixels, labels }
}

/**
 * Makes a data set of labelled images. Classes are in the order of their names, images in the order of theirs.
 *
 * @param folders Class folders that exist, also empty ones, as `train/<class>`.
 * Throws E_DATA_EMPTY_CLASS, E_DATA_IMAGE, and E_DATA_FORMAT where training or test images are missing.
 */
export async function fromImages(
  name: string,
  origin: string,
  files: readonly LabelledFile[],
  folders: ReadonlySet<string>,
  size: number,
  progress: (text: string) => void,
): Promise<Dataset> {
  const present = new Set(files.map(({ split, label }) => `${split}/${label}`))
  const classes = [...new Set([...present, ...folders].map((folder) => folder.split('/')[1]))].sort()
  for (const split of ['train', 'test'] as const) {
    if (!files.some((file) => file.split === split)) {
      throw new ConvoyError(
        'E_DATA_FORMAT',
        `${origin} has no images under ${split}/<class>/`,
        'Lay it out as train/<class>/* and test/<class>/*.',
      )
    }
    for (const label of classes) {
      if (!present.has(`${split}/${label}`)) {
        throw new ConvoyError(
          'E_DATA_EMPTY_CLASS',
          `${split}/${label} of ${origin} has no images`,
          'Put images there, or remove the class from both train/ and test/.',
        )
      }
    }
  }
  let done = 0
  const started = performance.now()
  const tick = () => {
    done++
    const left = ((performance.now() - started) / done / 1000) * (files.length - done)
    if (done % 100 === 0) progress(`converting images: ${done} of ${files.length}, ETA ${left.toFixed(0)} s`)
  }
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0))
  const [train, test] = [
    sorted.filter(({ split }) => split === 'train'),
    sorted.filter(({ split }) => split === 'test'),
  ]
  return makeDataset({
    name,
    origin,
    classes,
    shape: [size, size, 3],
    train: await decodeSplit(train, classes, size, tick),
    test: await decodeSplit(test, classes, size, tick),
  })
}
