import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import type { SourceFile } from './source.ts'

/** An image that belongs to a class of a split. */
export interface LabelledFile<F extends SourceFile = SourceFile> {
  readonly file: F
  readonly split: 'train' | 'test'
  readonly label: string
}

/** How a source is laid out: which of its files are images of which class, and what was left out. */
export interface Layout<F extends SourceFile = SourceFile> {
  /** In the order of their paths. */
  readonly images: readonly LabelledFile<F>[]
  /** In the order of their names. */
  readonly classes: readonly string[]
  /** What a user should know, a sentence each. */
  readonly notes: readonly string[]
  /** Of each class folder, as `train/<class>`: what was left out there. */
  readonly leftOut: ReadonlyMap<string, string>
}

const IMAGE = /\.(jpe?g|jpe|jfif|png|webp|gif|bmp|dib|tiff?|avif|ppm|pgm|pbm|pnm)$/i
const HIDDEN =
  /^(\..*|__MACOSX|@eaDir|lost\+found|\$RECYCLE\.BIN|System Volume Information|Thumbs\.db|desktop\.ini)$/i
/** The names that Hugging Face's image folders take (datasets, data_files.py), whatever their case. */
const SPLITS = {
  train: /^(train|training)$/i,
  test: /^(test|testing|eval|evaluation)$/i,
  validation: /^(val|valid|validation|dev)$/i,
} as const
type Split = keyof typeof SPLITS
const LAYOUT = 'Lay it out as train/<class>/* and test/<class>/*.'

/** Whether a file's name is that of an image. */
export function isImageName(name: string): boolean {
  return IMAGE.test(name)
}

/** Whether a file or folder belongs to a system or an editor rather than to the data. */
export function isHidden(name: string): boolean {
  return HIDDEN.test(name)
}

/** The order of code points, which is how Keras and torchvision sort names; UTF-16's is another beyond U+FFFF. */
export function byName(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const [x, y] = [a.charCodeAt(i), b.charCodeAt(i)]
    if (x === y) continue
    const [high, low] = [x >= 0xd800 && x < 0xe000, y >= 0xd800 && y < 0xe000]
    return high === low ? x - y : high ? (y >= 0xe000 ? 1 : x - y) : x >= 0xe000 ? -1 : x - y
  }
  return a.length - b.length
}

const splitOf = (name: string) => (Object.keys(SPLITS) as Split[]).find((split) => SPLITS[split].test(name))

/** `3 .heic, 1 .txt`, the most frequent first. */
function tally(names: readonly string[]): string {
  const counts = new Map<string, number>()
  for (const name of names) {
    const kind = path.posix.extname(name).toLowerCase() || 'without extension'
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  const sorted = [...counts].sort(([a, n], [b, m]) => m - n || byName(a, b))
  const more = sorted.length > 8 ? `, ${sorted.length - 8} more kinds` : ''
  return sorted
    .slice(0, 8)
    .map(([kind, n]) => `${n} ${kind}`)
    .join(', ')
    .concat(more)
}

/** The first few of many, in words. */
export function few(names: readonly string[], most = 3): string {
  const more = names.length - most
  return `${names.slice(0, most).join(', ')}${more > 0 ? ` and ${more} more` : ''}`
}

const files = (count: number) => (count === 1 ? '1 file is' : `${count} files are`)

/** A path with its place: `<root>/<split>/<class>/…/name`; the split is the last part that is called like one and has a class behind it. */
interface Place<F> {
  readonly file: F
  readonly root: string
  /** The split's folder as it is called; '' where there is none. */
  readonly folder: string
  readonly label: string
}

/** Takes what is hidden away, and names it. */
function withoutHidden<F extends SourceFile>(
  all: readonly F[],
  folders: readonly string[],
): { seen: F[]; note: string[] } {
  const hidden = new Set<string>()
  const isSeen = (name: string) => {
    const parts = name.split('/')
    const at = parts.findIndex(isHidden)
    if (at >= 0) hidden.add(parts.slice(0, at + 1).join('/'))
    return at < 0
  }
  const seen = all.filter(({ path: name }) => isSeen(name))
  for (const folder of folders) isSeen(folder)
  const names = [...hidden].sort(byName)
  return {
    seen,
    note:
      names.length > 0
        ? [`hidden files and folders of systems and editors are passed over: ${few(names)}`]
        : [],
  }
}

/** Where a file is among splits, if it is. */
function placed<F extends SourceFile>(file: F): Place<F> | undefined {
  const parts = file.path.split('/')
  for (let at = parts.length - 3; at >= 0; at--) {
    if (splitOf(parts[at]) === undefined) continue
    return { file, root: parts.slice(0, at).join('/'), folder: parts[at], label: parts[at + 1] }
  }
  return undefined
}

/** The places of files of a source that has no splits: classes are the first folders that differ. */
function unsplit<F extends SourceFile>(seen: readonly F[]): Place<F>[] {
  const images = seen.filter(({ path: name }) => isImageName(name) && name.includes('/'))
  const first = images.at(0)?.path.split('/').slice(0, -1) ?? []
  let depth = first.length
  for (const { path: name } of images) {
    const parts = name.split('/').slice(0, -1)
    let same = 0
    while (same < depth && parts[same] === first[same]) same++
    depth = same
  }
  // One class alone: its own name is no root.
  if (depth === first.length) depth = Math.max(0, depth - 1)
  const root = first.slice(0, depth).join('/')
  return seen.flatMap((file) => {
    const parts = file.path.split('/')
    const inside = parts.length > depth + 1 && parts.slice(0, depth).join('/') === root
    return inside ? [{ file, root, folder: '', label: parts[depth] }] : []
  })
}

function refuse(message: string, remedy: string): never {
  throw new ConvoyError('E_DATA_FORMAT', message, remedy)
}

/** Refuses a link that may have been a folder of images, or a class. */
function checkLinks(origin: string, seen: readonly SourceFile[]): void {
  const lost = seen.find(({ path: name, lost }) => lost && path.posix.extname(name) === '')
  if (lost)
    refuse(`${lost.path} of ${origin} ${lost.problem}`, 'Restore what it leads to, or remove the link.')
}

/** The one folder that is called like a split. Throws E_DATA_FORMAT where there are two. */
function folderOf(origin: string, folders: ReadonlySet<string>, split: Split): string | undefined {
  const named = [...folders].filter((name) => splitOf(name) === split).sort(byName)
  if (named.length > 1)
    refuse(
      `${origin} has ${named.map((name) => `${name}/`).join(' and ')}`,
      'Keep one of them, or merge them.',
    )
  return named[0]
}

/** The places that count, by split, and what is said of the others. Throws E_DATA_FORMAT. */
function choose<F extends SourceFile>(origin: string, places: readonly Place<F>[]) {
  const roots = [...new Set(places.map(({ root }) => root))].sort(byName)
  if (roots.length > 1)
    refuse(
      `${origin} holds several data sets: ${few(
        roots.map((root) => (root === '' ? 'train/, test/ at its top' : `${root}/`)),
        4,
      )}`,
      'Give --data the folder of one of them, or an archive of it.',
    )
  const present = new Set(places.map(({ folder }) => folder))
  const train = folderOf(origin, present, 'train')
  const test = folderOf(origin, present, 'test')
  const validation = folderOf(origin, present, 'validation')
  const notes: string[] = []
  if (test !== undefined && validation !== undefined) {
    const count = places.filter(({ folder, file }) => folder === validation && isImageName(file.path)).length
    notes.push(`the ${count} images of ${validation}/ are left out: ${test}/ is the test set`)
  } else if (validation !== undefined) notes.push(`${validation}/ is the test set`)
  const tested = test ?? validation
  return {
    train,
    test: tested,
    notes,
    chosen: places.filter(({ folder }) => folder === train || folder === tested),
  }
}

/**
 * Finds images and their classes: `…/train/<class>/…` and `…/test/<class>/…` at any one depth, or folders of classes without
 * a split, all of which are training images. A class is the first folder below its split's; images further below are its too.
 *
 * Throws E_DATA_FORMAT where there is no such thing, or more than one.
 */
export function layOut<F extends SourceFile>(
  origin: string,
  all: readonly F[],
  folders: readonly string[],
): Layout<F> {
  const { seen, note } = withoutHidden(all, folders)
  checkLinks(origin, seen)
  const split = seen.flatMap((file) => placed(file) ?? [])
  const isSplit = split.some(({ file }) => isImageName(file.path))
  const { chosen, train, test, notes } = isSplit
    ? choose(origin, split)
    : { chosen: unsplit(seen), train: '', test: undefined, notes: [] }
  const images = chosen.filter(({ file }) => isImageName(file.path))
  checkFound(origin, seen, images, isSplit)
  const inPlaces = new Set((isSplit ? split : chosen).map(({ file }) => file))
  const outside = seen
    .filter((file) => isImageName(file.path) && !inPlaces.has(file))
    .map(({ path: name }) => name)
  const name = ({ folder, label }: Place<F>) => `${folder === test ? 'test' : 'train'}/${label}`
  const others = new Map<string, string[]>()
  for (const place of chosen) {
    if (isImageName(place.file.path)) continue
    others.set(name(place), [...(others.get(name(place)) ?? []), place.file.path])
  }
  const left = [...others.values()].flat()
  const root = images[0].root === '' ? '' : `${images[0].root}/`
  const empty = folders.flatMap((folder) => {
    const parts = folder.slice(root.length).split('/')
    const inside = folder.startsWith(root) && !folder.split('/').some(isHidden)
    if (!isSplit || !inside || parts.length !== 2) return []
    return parts[0] === train || parts[0] === test ? [parts[1]] : []
  })
  return {
    images: images
      .map((place) => ({
        file: place.file,
        split: place.folder === test ? ('test' as const) : ('train' as const),
        label: place.label,
      }))
      .sort((a, b) => byName(a.file.path, b.file.path)),
    classes: [...new Set([...chosen.map(({ label }) => label), ...empty])].sort(byName),
    notes: [
      ...notes,
      ...note,
      ...(left.length > 0
        ? [`${files(left.length)} left out, not being images that can be read: ${tally(left)}`]
        : []),
      ...(outside.length > 0
        ? [`${files(outside.length)} left out, not being in a class's folder: ${few(outside)}`]
        : []),
    ],
    leftOut: new Map([...others].map(([key, names]) => [key, tally(names)])),
  }
}

/** Throws E_DATA_FORMAT where no images of classes were found. */
function checkFound(
  origin: string,
  seen: readonly SourceFile[],
  images: readonly Place<SourceFile>[],
  isSplit: boolean,
): void {
  const loose = seen.filter(({ path: name }) => isImageName(name)).map(({ path: name }) => name)
  // What would be taken for classes then are splits without classes.
  const flat = !isSplit && images.length > 0 && images.every(({ label }) => splitOf(label) !== undefined)
  if (images.length > 0 && !flat) return
  if (loose.length > 0) refuse(`the images of ${origin} are in no folders of classes: ${few(loose)}`, LAYOUT)
  const names = seen.map(({ path: name }) => name)
  refuse(
    `${origin} holds neither images in folders of classes, nor .bin batches, nor one archive${names.length > 0 ? `, but ${tally(names)}` : ''}`,
    LAYOUT,
  )
}
