import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import { isMetadata, NO_METADATA, type Metadata } from './metadata.ts'
import { byName, few, isHidden, isImageName, isParquet } from './names.ts'
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

/** The names that Hugging Face's image folders take (datasets, data_files.py), whatever their case. */
const SPLITS = {
  train: /^(train|training)$/i,
  test: /^(test|testing|eval|evaluation)$/i,
  validation: /^(val|valid|validation|dev)$/i,
} as const
type Split = keyof typeof SPLITS
const LAYOUT =
  'Lay it out as train/<class>/* and test/<class>/*, or give a metadata.csv with the columns file_name and label.'

/** The split that a folder or file is called by. */
export const splitOf = (name: string) =>
  (Object.keys(SPLITS) as Split[]).find((split) => SPLITS[split].test(name))

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

const files = (count: number) => (count === 1 ? '1 file is' : `${count} files are`)

/** A path with its place: `<root>/<split>/<class>/…/name`; the split is the last part that is called like one and has a class behind it. */
export interface Place<F> {
  readonly file: F
  readonly root: string
  /** The split's folder as it is called; '' where there is none. */
  readonly folder: string
  readonly label: string
}

/** Takes what is hidden away, and names it. */
export function withoutHidden<F extends SourceFile>(
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

/** The places of files that metadata has labels for: in splits, or all in none. */
function labelled<F extends SourceFile>(seen: readonly F[], labels: Metadata['labels']): Place<F>[] {
  const places = seen.flatMap((file) => {
    const label = labels.get(file.path)
    if (label === undefined) return []
    const parts = file.path.split('/').slice(0, -1)
    const at = parts.findLastIndex((part) => splitOf(part) !== undefined)
    return [{ file, root: parts.slice(0, Math.max(0, at)).join('/'), folder: parts[at] ?? '', label }]
  })
  const split = places.filter(({ folder }) => folder !== '')
  return split.length > 0 ? split : places
}

/** Where files are: in folders of classes or, where those are fewer than two, as metadata says. */
function arrange<F extends SourceFile>(seen: readonly F[], { labels }: Metadata) {
  const split = seen.flatMap((file) => placed(file) ?? [])
  const isSplit = split.some(({ file }) => isImageName(file.path))
  const places = isSplit ? split : unsplit(seen)
  const classes = new Set(places.flatMap(({ file, label }) => (isImageName(file.path) ? [label] : [])))
  // Without classes in them, splits look like classes.
  const found = classes.size > 1 && (isSplit || [...classes].some((label) => splitOf(label) === undefined))
  if (found || labels.size === 0) return { places, isSplit, byFolder: true }
  const told = labelled(seen, labels)
  return { places: told, isSplit: told.some(({ folder }) => folder !== ''), byFolder: false }
}

/** Whether metadata divides images as their folders do, under the same names or, such as numbers, under others; else what it says. */
function contradiction(places: readonly Place<SourceFile>[], { labels }: Metadata): string[] {
  const both = places.flatMap(({ file, label }) => {
    const other = labels.get(file.path)
    return other === undefined ? [] : [{ name: file.path, label, other }]
  })
  const different = both.filter(({ label, other }) => label !== other)
  const folders = new Set(both.map(({ label }) => label))
  const others = new Set(both.map(({ other }) => other))
  const pairs = new Set(both.map(({ label, other }) => JSON.stringify([label, other])))
  const renamed = pairs.size === folders.size && pairs.size === others.size
  if (different.length === 0 || (renamed && [...others].every((other) => !folders.has(other)))) return []
  const named = few(different.map(({ name, other }) => `${name} is ${other}`))
  return [`the folders of images count; metadata says another class of ${different.length}: ${named}`]
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
export function choose<F extends SourceFile>(origin: string, places: readonly Place<F>[]) {
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
    const inside = places.filter(({ folder }) => folder === validation).map(({ file }) => file.path)
    const tables = inside.filter(isParquet).length
    const images = inside.filter(isImageName).length
    const what = images === 0 && tables > 0 ? `${tables} files` : `${images} images`
    notes.push(`the ${what} of ${validation}/ are left out: ${test}/ is the test set`)
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
 * Where there are no two such folders, metadata tells the classes.
 *
 * Throws E_DATA_FORMAT where there is no such thing, or more than one.
 */
export function layOut<F extends SourceFile>(
  origin: string,
  all: readonly F[],
  folders: readonly string[],
  metadata = NO_METADATA,
): Layout<F> {
  const { seen, note } = withoutHidden(all, folders)
  checkLinks(origin, seen)
  const { places, isSplit, byFolder } = arrange(seen, metadata)
  const { chosen, train, test, notes } = isSplit
    ? choose(origin, places)
    : { chosen: places, train: '', test: undefined, notes: [] }
  const images = chosen.filter(({ file }) => isImageName(file.path))
  if (byFolder) checkFound(origin, seen, images, isSplit, metadata)
  const inPlaces = new Set(places.map(({ file }) => file))
  const outside = seen
    .filter((file) => isImageName(file.path) && !inPlaces.has(file))
    .map(({ path: name }) => name)
  const name = ({ folder, label }: Place<F>) => `${folder === test ? 'test' : 'train'}/${label}`
  const others = new Map<string, string[]>()
  for (const place of chosen) {
    if (isImageName(place.file.path) || isMetadata(place.file.path)) continue
    others.set(name(place), [...(others.get(name(place)) ?? []), place.file.path])
  }
  const left = [...others.values()].flat()
  const root = images[0].root === '' ? '' : `${images[0].root}/`
  const empty = folders.flatMap((folder) => {
    const parts = folder.slice(root.length).split('/')
    const inside = folder.startsWith(root) && !folder.split('/').some(isHidden)
    if (!isSplit || !byFolder || !inside || parts.length !== 2) return []
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
      ...metadata.notes,
      ...(byFolder ? contradiction(images, metadata) : ['classes are those of the metadata']),
      ...(left.length > 0
        ? [`${files(left.length)} left out, not being images that can be read: ${tally(left)}`]
        : []),
      ...(outside.length > 0
        ? [
            `${files(outside.length)} left out, ${byFolder ? "not being in a class's folder" : 'having no label'}: ${few(outside)}`,
          ]
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
  { without }: Metadata,
): void {
  const loose = seen.filter(({ path: name }) => isImageName(name)).map(({ path: name }) => name)
  // What would be taken for classes then are splits without classes.
  const flat = !isSplit && images.length > 0 && images.every(({ label }) => splitOf(label) !== undefined)
  if (images.length > 0 && !flat) return
  const why = without === undefined ? '' : `; ${without}`
  if (loose.length > 0)
    refuse(`the images of ${origin} are in no folders of classes: ${few(loose)}${why}`, LAYOUT)
  const names = seen.map(({ path: name }) => name)
  refuse(
    `${origin} holds neither images in folders of classes, nor .bin batches, nor one archive${names.length > 0 ? `, but ${tally(names)}` : ''}`,
    LAYOUT,
  )
}
