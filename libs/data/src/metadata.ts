import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import { few, isHidden, isImageName } from './names.ts'
import { labelText, ParquetFile, partsOf } from './parquet.ts'
import type { Source, SourceFile } from './source.ts'

/**
 * The labels of Hugging Face's image folders (datasets, folder_based_builder.py): `metadata.csv`, `metadata.jsonl` and `metadata.parquet`,
 * a row an image, with the columns `file_name`, seen from the file's own folder, and `label`.
 */
export interface Metadata {
  /** Labels of the images that are there, by their paths. */
  readonly labels: ReadonlyMap<string, string>
  /** What a user should know, a sentence each. */
  readonly notes: readonly string[]
  /** Why there are no labels though there is metadata. */
  readonly without?: string
}

export const NO_METADATA: Metadata = { labels: new Map(), notes: [] }

const NAME = /^metadata\.(csv|jsonl|parquet)$/
type Row = Readonly<Record<string, unknown>>

/** Whether a file, by its path, holds labels rather than an image. */
export const isMetadata = (name: string): boolean => NAME.test(path.posix.basename(name))

/** Reads the labels that a source has, if any. Throws E_DATA_FORMAT where a file of them is malformed or contradicts another. */
export async function readMetadata<F extends SourceFile>(source: Source<F>): Promise<Metadata> {
  const files = source.files.filter(
    ({ path: name, problem }) => isMetadata(name) && problem === undefined && !name.split('/').some(isHidden),
  )
  if (files.length === 0) return NO_METADATA
  const images = new Set(source.files.flatMap(({ path: name }) => (isImageName(name) ? [name] : [])))
  const labels = new Map<string, string>()
  const astray: string[] = []
  let unlabelled = 0
  let without = `${few(files.map(({ path: name }) => name))} has no label of an image that is there`
  const take = async (file: string, bytes: Buffer) => {
    const rows = await rowsOf(file, bytes)
    if (!['file_name', 'label'].every((column) => rows.some((row) => column in row))) {
      const columns = Object.keys(rows[0] ?? {})
      without = `${file} has not the columns file_name and label, but ${columns.join(', ') || 'none'}`
      return
    }
    for (const { file_name: name, label } of rows) {
      const image = path.posix.join(path.posix.dirname(file), String(name).replaceAll('\\', '/'))
      const known = labels.get(image)
      if (!images.has(image)) astray.push(String(name))
      else if ((typeof label !== 'string' && typeof label !== 'number') || label === '') unlabelled++
      else if (known !== undefined && known !== String(label))
        throw malformed(file, `it says that ${image} is ${label}, and elsewhere that it is ${known}`)
      else labels.set(image, String(label))
    }
  }
  await source.read(
    files,
    (file, bytes) => take(file.path, bytes),
    (file, reason) => {
      throw malformed(file.path, `it ${reason}`)
    },
  )
  const notes = [
    ...(astray.length > 0 ? [`rows of metadata name images that are not there: ${few(astray)}`] : []),
    ...(unlabelled > 0 ? [`rows of metadata whose label is neither text nor a number: ${unlabelled}`] : []),
  ]
  return labels.size > 0 ? { labels, notes } : { labels, notes, without }
}

function malformed(file: string, what: string): ConvoyError {
  return new ConvoyError(
    'E_DATA_FORMAT',
    `${file} cannot be read: ${what}`,
    'Mend it (a row an image, with file_name and label), or remove it and lay the images out as train/<class>/*.',
  )
}

function textOf(file: string, bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes)
  } catch {
    throw malformed(file, 'it is not UTF-8')
  }
}

/** A line of JSON each. */
function jsonRows(file: string, bytes: Buffer): Row[] {
  return textOf(file, bytes)
    .split('\n')
    .flatMap((line, i) => {
      if (line.trim() === '') return []
      try {
        const row = JSON.parse(line) as Row | null
        if (typeof row === 'object' && row !== null) return [row]
      } catch {
        // Said below.
      }
      throw malformed(file, `its line ${i + 1} is no JSON object`)
    })
}

/** Fields with commas between, with or without quotes, the first line of which are the columns' names (RFC 4180). */
async function csvRows(file: string, bytes: Buffer): Promise<Row[]> {
  const { default: csv } = await import('papaparse')
  // It takes the first line's end for that of all lines.
  const text = textOf(file, bytes).replaceAll('\r\n', '\n')
  const { data, errors } = csv.parse<string[]>(text, { delimiter: ',', newline: '\n', skipEmptyLines: true })
  if (errors.length > 0) throw malformed(file, `its line ${(errors[0].row ?? 0) + 1} is no CSV`)
  const [columns = [], ...rows] = data
  return rows.map((row, i) => {
    if (row.length === columns.length) return Object.fromEntries(columns.map((name, at) => [name, row[at]]))
    throw malformed(file, `its row ${i + 1} has ${row.length} fields instead of ${columns.length}`)
  })
}

/** The columns of names and labels alone; labels that the file has names for are those names. */
async function parquetRows(file: string, bytes: Buffer): Promise<Row[]> {
  const parquet = await ParquetFile.open(file, partsOf(bytes))
  const rows: Record<string, unknown>[] = []
  for (const column of parquet.columns) {
    const name = column.path.join('.')
    const isAsked = name === 'file_name' || name === 'label'
    let at = 0
    if (isAsked)
      for await (const page of parquet.pages(column))
        for (const value of page) (rows[at++] ??= {})[name] = labelText(value, parquet.features[name]?.names)
    else (rows[0] ??= {})[name] = undefined
  }
  return rows
}

function rowsOf(file: string, bytes: Buffer): Promise<Row[]> | Row[] {
  if (file.endsWith('.parquet')) return parquetRows(file, bytes)
  return file.endsWith('.csv') ? csvRows(file, bytes) : jsonRows(file, bytes)
}
