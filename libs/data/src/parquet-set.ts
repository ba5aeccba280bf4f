import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import { choose, splitOf, withoutHidden, type LabelledFile, type Layout, type Place } from './layout.ts'
import { isMetadata } from './metadata.ts'
import { byName, few, isHidden, isImageName, isParquet } from './names.ts'
import { labelText, withParquet, type Column, type ParquetFile } from './parquet.ts'
import { roomForFiles, tooLarge, type Source, type SourceFile } from './source.ts'

/** An image that is a row of a Parquet file. */
interface Row<F> extends SourceFile {
  readonly table: F
  /** From 0. */
  readonly number: number
}

type Table = Place<SourceFile>

/** Where labels are if several columns could be, in this order: CIFAR-100 has coarse ones too. */
const LABELS = ['label', 'labels', 'fine_label']

/** The Parquet files that hold a source's images, if there are no other images. */
function tablesOf<F extends SourceFile>({ files }: Source<F>): F[] {
  const seen = files.filter(({ path: name }) => !name.split('/').some(isHidden))
  if (seen.some(({ path: name }) => isImageName(name))) return []
  return seen.filter(({ path: name }) => isParquet(name) && !isMetadata(name))
}

/** Whether a source is a data set of Parquet files, as on the Hugging Face Hub. */
export const isParquetSet = (source: Source): boolean => tablesOf(source).length > 0

/** `plain_text/train-00000-of-00001.parquet` and `plain_text/train/0000.parquet` are of the split train, with the root plain_text. */
function place(file: SourceFile): Table {
  const folders = file.path.split('/').slice(0, -1)
  const [word = ''] = /^[a-z]+(?![a-z])/i.exec(path.posix.basename(file.path)) ?? []
  if (splitOf(word) !== undefined) return { file, root: folders.join('/'), folder: word, label: '' }
  const at = folders.findLastIndex((folder) => splitOf(folder) !== undefined)
  if (at < 0) return { file, root: folders.join('/'), folder: '', label: '' }
  return { file, root: folders.slice(0, at).join('/'), folder: folders[at], label: '' }
}

/** Throws E_DATA_TRUNCATED where a shard is missing: `…-00001-of-00005.parquet` says how many there are. */
function checkShards(origin: string, tables: readonly Table[]): void {
  const shards = new Map<string, number>()
  for (const { file } of tables) {
    const name = /^(.*)-\d{5}(-of-\d{5})(-[0-9a-f]+)?\.parquet$/i.exec(file.path)
    if (name) shards.set(name[1] + name[2], (shards.get(name[1] + name[2]) ?? 0) + 1)
  }
  for (const [name, count] of shards) {
    const all = Number(name.slice(-5))
    if (count < all)
      throw new ConvoyError(
        'E_DATA_TRUNCATED',
        `${origin} has ${count} of the ${all} files of ${name.slice(0, -'-of-00000'.length)}`,
        'Fetch the others too.',
      )
  }
}

function refuse(message: string, remedy: string): never {
  throw new ConvoyError('E_DATA_FORMAT', message, remedy)
}

const namesOf = (columns: readonly Column[]) => columns.map(({ path: parts }) => parts.join('.')).join(', ')

/** The column of encoded images: that of the feature Image, or else the only struct with `bytes`, or else the only one of bytes. */
function imageColumn({ name, columns, features }: ParquetFile): Column {
  const bytes = columns.filter(
    ({ path: parts, type, isText }) =>
      type === 'BYTE_ARRAY' &&
      !isText &&
      (parts.length === 1 || (parts.length === 2 && parts[1] === 'bytes')),
  )
  const noted = bytes.filter(({ path: [first] }) => features[first]?._type === 'Image')
  const structs = bytes.filter(({ path: parts }) => parts.length === 2)
  const found = [noted, structs, bytes].find(({ length }) => length > 0) ?? []
  if (found.length === 1) return found[0]
  return refuse(
    found.length === 0
      ? `${name} has no column of images, but ${namesOf(columns) || 'none that is read'}`
      : `${name} has several columns of images: ${namesOf(found)}`,
    'Give it one column of encoded images (PNG, JPEG, …), as bytes or as a struct with a field bytes.',
  )
}

/** The column of classes: that of the feature ClassLabel, or else the one that is called so. */
function labelColumn({ name, columns, features }: ParquetFile): Column {
  const flat = columns.filter(({ path: parts }) => parts.length === 1)
  const noted = flat.filter(({ path: [first] }) => features[first]?._type === 'ClassLabel')
  const called = (among: readonly Column[]) =>
    LABELS.flatMap((label) => among.filter(({ path: [first] }) => first === label)).at(0)
  const found = noted.length === 1 ? noted[0] : (called(noted) ?? called(flat))
  return (
    found ??
    refuse(
      `${name} has no column of labels, but ${namesOf(columns) || 'none that is read'}`,
      'Call the column of classes label: numbers or text.',
    )
  )
}

/** Labels of a table's rows, and the names of all classes if the table has them. */
async function readLabels(parquet: ParquetFile) {
  // Before anything is read of another: what has no images is refused for that.
  imageColumn(parquet)
  const column = labelColumn(parquet)
  const names = parquet.features[column.path[0]]?.names
  const labels: string[] = []
  for await (const page of parquet.pages(column))
    for (const value of page) {
      const label = labelText(value, names)
      if (label === undefined || label === '')
        refuse(
          `${parquet.name} row ${labels.length + 1} has ${value === null ? 'no label' : `the label ${String(value)}, and ${names?.length} classes have names`}`,
          'Write the file again without such rows; a test set without labels is of no use.',
        )
      labels.push(label)
    }
  return { labels, names, isNumber: names === undefined && column.type !== 'BYTE_ARRAY' }
}

/** The classes that have images: in the order of their numbers, or else of their names. */
function classesOf(labels: ReadonlySet<string>, names: readonly string[] | undefined, areNumbers: boolean) {
  if (names) return names.filter((name) => labels.has(name))
  return areNumbers ? [...labels].sort((a, b) => Number(a) - Number(b)) : [...labels].sort(byName)
}

/**
 * Lists the rows of a data set of Parquet files, with their labels: training images first, files in the order of their names.
 * Images are read later, page by page.
 *
 * Throws E_DATA_FORMAT where images or labels are missing, E_DATA_TRUNCATED where a file is missing or ends too early.
 */
export async function openParquetSet<F extends SourceFile>(
  origin: string,
  source: Source<F>,
): Promise<{ source: Source<Row<F>>; layout: Layout<Row<F>> }> {
  const places = tablesOf(source).map((file) => ({ ...place(file), file }))
  const isSplit = places.some(({ folder }) => folder !== '')
  const split = places.filter(({ folder }) => !isSplit || splitOf(folder) !== undefined)
  const others = places.filter((one) => !split.includes(one)).map(({ file }) => file.path)
  const { chosen, test, notes } = isSplit
    ? choose(origin, split)
    : { chosen: split, test: undefined, notes: [] }
  checkShards(origin, chosen)
  const images: LabelledFile<Row<F>>[] = []
  const known: Awaited<ReturnType<typeof readLabels>>[] = []
  for (const { file, folder } of chosen.sort((a, b) => byName(a.file.path, b.file.path))) {
    const told = await withParquet(source, file, readLabels)
    known.push(told)
    if (JSON.stringify(told.names) !== JSON.stringify(known[0].names))
      refuse(
        `${chosen[0].file.path} and ${file.path} have other names of classes`,
        'Give --data the files of one data set.',
      )
    told.labels.forEach((label, number) => {
      const row = {
        path: `${file.path} row ${number + 1}`,
        size: 0,
        table: file,
        number,
        stamp: file.stamp ?? '',
      }
      images.push({ file: row, split: folder === test && isSplit ? 'test' : 'train', label })
    })
  }
  const labels = new Set(images.map(({ label }) => label))
  const classes = classesOf(
    labels,
    known[0]?.names,
    known.every(({ isNumber }) => isNumber),
  )
  const without = known[0]?.names?.filter((name) => !labels.has(name)) ?? []
  const { note } = withoutHidden(source.files, source.folders)
  return {
    source: {
      files: images.map(({ file }) => file),
      folders: [],
      read: (rows, use, failed) => readRows(source, rows, use, failed),
    },
    layout: {
      images,
      classes,
      notes: [
        ...notes,
        ...note,
        `images are the rows of Parquet files: ${few(chosen.map(({ file }) => file.path))}`,
        ...(others.length > 0 ? [`Parquet files of no split are left out: ${few(others)}`] : []),
        ...(without.length > 0 ? [`classes without images are left out: ${few(without)}`] : []),
      ],
      leftOut: new Map(),
    },
  }
}

/** Reads images of rows, a page of a file at a time. */
async function readRows<F extends SourceFile>(
  source: Source<F>,
  rows: readonly Row<F>[],
  use: (row: Row<F>, bytes: Buffer) => Promise<void>,
  failed: (row: Row<F>, reason: string) => void,
): Promise<void> {
  const tables = new Map<F, Row<F>[]>()
  for (const row of rows) {
    const some = tables.get(row.table)
    if (some) some.push(row)
    else tables.set(row.table, [row])
  }
  const room = roomForFiles()
  for (const [table, wanted] of tables)
    await withParquet(source, table, async (parquet) => {
      let number = 0
      for await (const page of parquet.pages(imageColumn(parquet)))
        // All rows of a table are wanted or none.
        await Promise.all(
          page.map(async (value) => {
            const row = wanted.at(number++)
            if (!row) return
            if (!(value instanceof Uint8Array))
              return failed(row, 'has no bytes of an image, but null or a path alone')
            const problem = tooLarge(value.length, 'image')
            if (problem !== undefined) return failed(row, problem)
            const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength)
            await room.hold(bytes.length, () => use(row, bytes))
          }),
        )
      if (number !== wanted.length)
        refuse(
          `${parquet.name} has ${wanted.length} labels and ${number} images`,
          'Fetch or write the file again.',
        )
    })
}
