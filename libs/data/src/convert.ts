import { ConvoyError } from '@convoy/errors'
import { makeDataset, type Dataset, type Split } from './dataset.ts'
import { decode, reasonOf } from './images.ts'
import type { LabelledFile, Layout } from './layout.ts'
import { byName, few } from './names.ts'
import { loadSharp } from './sharp.ts'
import type { Source, SourceFile } from './source.ts'

/** Samples up to this are nearly black, of 255. */
const DARK = 31
/** Files that an error names. */
const NAMED = 10

/** A split that is being filled; a label of -1 is an image that could not be decoded. */
interface Filling extends Split {
  readonly pixels: Uint8Array
}

interface Unreadable {
  readonly path: string
  readonly label: string
  readonly reason: string
}

export interface ConvertOptions {
  /** Height and width that images are resized to. */
  readonly size: number
  /** Leave out what cannot be decoded. */
  readonly skipUnreadable: boolean
  readonly progress: (text: string) => void
}

/**
 * Decodes the images of a layout into a data set; those of each split are in the order of their paths.
 *
 * Throws E_DATA_IMAGE, which names what cannot be decoded, and E_DATA_FORMAT where it is too much for memory.
 */
export async function convert<F extends SourceFile>(
  name: string,
  origin: string,
  source: Source<F>,
  { images, classes, notes }: Layout<F>,
  { size, skipUnreadable, progress }: ConvertOptions,
): Promise<Dataset> {
  const parts = { train: allocate(images, 'train', size), test: allocate(images, 'test', size) }
  const unreadable: Unreadable[] = []
  const [damaged, blank]: [string[], string[]] = [[], []]
  const places = new Map<F, { image: LabelledFile<F>; at: number }>()
  const next = { train: 0, test: 0 }
  for (const image of images) places.set(image.file, { image, at: next[image.split]++ })
  const tick = counter(images.length, progress)
  const failed = (file: F, reason: string) => {
    unreadable.push({ path: file.path, label: places.get(file)!.image.label, reason })
    tick()
  }
  for (const { file } of images) if (file.problem !== undefined) failed(file, file.problem)
  const numbers = new Map(classes.map((label, i) => [label, i]))
  const use = async (file: F, bytes: Buffer) => {
    const decoded = await decode(bytes, size).catch((error: unknown) => reasonOf(error))
    if (typeof decoded === 'string') return failed(file, decoded)
    const { image, at } = places.get(file)!
    const { pixels, labels } = parts[image.split]
    pixels.set(decoded.pixels, at * size * size * 3)
    labels[at] = numbers.get(image.label)!
    if (decoded.damaged) damaged.push(file.path)
    if (isBlank(decoded.pixels)) blank.push(file.path)
    tick()
  }
  const readable = images.flatMap(({ file }) => (file.problem === undefined ? [file] : []))
  // Where it is missing, no image is at fault.
  await loadSharp()
  await source.read(readable, use, failed)
  unreadable.sort((a, b) => byName(a.path, b.path))
  if (unreadable.length > 0 && !skipUnreadable) throw refusal(unreadable, images.length)
  return makeDataset({
    ...{ name, origin, classes, shape: [size, size, 3] as const },
    train: withoutUnread(parts.train),
    test: withoutUnread(parts.test),
    notes: [
      ...notes,
      ...(unreadable.length > 0 ? [`${summary(unreadable, images.length)} and are left out`] : []),
      ...told(damaged, 'damaged, but decoded'),
      ...told(
        blank,
        `of one colour or nearly black (no sample over ${DARK} of 255; 12 bits in a file of 16 look so)`,
      ),
    ],
    skipped: unreadable.map(({ path, reason }) => `${path} ${reason}`),
  })
}

function allocate(images: readonly LabelledFile[], split: 'train' | 'test', size: number): Filling {
  const count = images.filter((image) => image.split === split).length
  try {
    const pixels = new Uint8Array(count * size * size * 3)
    return { count, pixels, labels: new Int32Array(count).fill(-1) }
  } catch (error) {
    throw new ConvoyError(
      'E_DATA_FORMAT',
      `${count} images of ${size}×${size} do not fit into memory`,
      'Make --image-size smaller, or take fewer images.',
      { cause: error },
    )
  }
}

/** Tells of every hundredth image that is done. */
function counter(total: number, progress: (text: string) => void): () => void {
  const started = performance.now()
  let done = 0
  return () => {
    done++
    const left = ((performance.now() - started) / done / 1000) * (total - done)
    if (done % 100 === 0) progress(`converting images: ${done} of ${total}, ETA ${left.toFixed(0)} s`)
  }
}

/** Whether an image says nothing: all its pixels are one, or none has a sample that is seen. */
function isBlank(pixels: Uint8Array): boolean {
  let most = 0
  let plain = true
  for (let i = 0; i < pixels.length; i++) {
    if (pixels[i] > most) most = pixels[i]
    if (pixels[i] !== pixels[i % 3]) plain = false
    if (most > DARK && !plain) return false
  }
  return true
}

function told(paths: readonly string[], what: string): string[] {
  if (paths.length === 0) return []
  return [
    `${paths.length === 1 ? '1 image is' : `${paths.length} images are`} ${what}: ${few([...paths].sort(byName))}`,
  ]
}

function summary(unreadable: readonly Unreadable[], total: number): string {
  const counts = new Map<string, number>()
  for (const { label } of unreadable) counts.set(label, (counts.get(label) ?? 0) + 1)
  const classes = [...counts].sort(([a], [b]) => byName(a, b)).map(([label, count]) => `${count} of ${label}`)
  return `${unreadable.length} of ${total} images cannot be read (${few(classes, NAMED)})`
}

function refusal(unreadable: readonly Unreadable[], total: number): ConvoyError {
  const lines = unreadable.slice(0, NAMED).map(({ path, reason }) => `${path} ${reason}`)
  const more = unreadable.length - NAMED
  if (more > 0) lines.push(`and ${more} more`)
  return new ConvoyError(
    'E_DATA_IMAGE',
    unreadable.length === 1 ? lines[0] : [`${summary(unreadable, total)}:`, ...lines].join('\n    '),
    'Replace or remove the files, or leave them out with --skip-unreadable.',
  )
}

/** Moves together what was decoded, where it is. */
function withoutUnread({ count, pixels, labels }: Filling): Split {
  const volume = pixels.length / count
  let to = 0
  for (let from = 0; from < count; from++) {
    if (labels[from] < 0) continue
    if (from !== to) {
      pixels.copyWithin(to * volume, from * volume, (from + 1) * volume)
      labels[to] = labels[from]
    }
    to++
  }
  if (to === count) return { count, pixels, labels }
  return { count: to, pixels: pixels.slice(0, to * volume), labels: labels.slice(0, to) }
}
