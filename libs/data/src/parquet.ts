import { ConvoyError } from '@convoy/errors'
import type { FileMetaData, SchemaTree } from 'hyparquet'
import { open } from 'node:fs/promises'
import path from 'node:path'
import { otherThanAsked } from './images.ts'
import {
  CodecError,
  LARGEST_PAGE,
  loadKit,
  readDictionary,
  readPage,
  type Kit,
  type PagedColumn,
  type Value,
} from './parquet-page.ts'
import { MOST_FILES, type Source, type SourceFile } from './source.ts'

/** What a file begins and ends with; an encrypted one's end is another. */
const MAGIC = 'PAR1'
const ENCRYPTED = 'PARE'
/** Bytes of a footer: that of 5,000 row groups has some 3 MB. */
const LARGEST_FOOTER = 16 * 2 ** 20
/** A page's header has less: it may have the smallest and largest value in it. */
const LARGEST_HEADER = 2 ** 16

/** A file of which parts are read. */
export interface Parts {
  /** In bytes. */
  readonly size: number
  /** Bytes in memory of their own; fewer than asked for where the file ends. */
  read(offset: number, length: number): Promise<Uint8Array>
}

/** A file that is in memory. */
export const partsOf = (bytes: Buffer): Parts => ({
  size: bytes.length,
  read: (offset, length) => Promise.resolve(new Uint8Array(bytes.subarray(offset, offset + length))),
})

/** A column of values, one a row, by its path: that of a struct's field has two parts. */
export interface Column {
  readonly path: readonly string[]
  readonly type: PagedColumn['type']
  readonly isText: boolean
  readonly levels: number
}

/** What Hugging Face's datasets note of a column. */
export interface Feature {
  /** Such as `Image` or `ClassLabel`. */
  readonly _type: string
  /** Of classes, in the order of their numbers. */
  readonly names?: readonly string[]
}

/** A Parquet file (https://parquet.apache.org/docs/file-format/), of which columns are read page by page. */
export class ParquetFile {
  /** As errors call it. */
  readonly name: string
  /** Those that are neither lists nor maps nor within one. */
  readonly columns: readonly Column[]
  /** By the names of columns; empty where the file has no such note. */
  readonly features: Readonly<Record<string, Feature>>
  readonly #parts: Parts
  readonly #kit: Kit
  readonly #metadata: FileMetaData

  private constructor(name: string, parts: Parts, kit: Kit, metadata: FileMetaData) {
    this.name = name
    this.#parts = parts
    this.#kit = kit
    this.#metadata = metadata
    this.columns = columnsOf(kit.parquetSchema(metadata), 0)
    this.features = featuresOf(metadata)
  }

  /** Reads what a file holds. Throws E_DATA_TRUNCATED where it ends too early, E_DATA_FORMAT where it is none that is read. */
  static async open(name: string, parts: Parts): Promise<ParquetFile> {
    const text = async (offset: number, length: number) =>
      Buffer.from(await parts.read(offset, length)).toString('latin1')
    if (parts.size === 0) throw malformed(name, 'is empty')
    const start = await text(0, 512)
    const end = await text(Math.max(0, parts.size - 4), 4)
    if (!start.startsWith(MAGIC) && !start.startsWith(ENCRYPTED))
      throw malformed(name, otherThanAsked(start) ?? 'is no Parquet file')
    if (end === ENCRYPTED || start.startsWith(ENCRYPTED))
      throw malformed(name, 'is encrypted', 'Write it again without encryption.')
    if (parts.size < 12 || end !== MAGIC) throw truncated(name)
    const footer = new DataView((await parts.read(parts.size - 8, 4)).buffer).getUint32(0, true)
    if (footer > LARGEST_FOOTER || footer + 12 > parts.size)
      throw malformed(name, `says that its footer has ${footer} bytes; the file has ${parts.size}`)
    const kit = await loadKit()
    const tail = await parts.read(parts.size - 8 - footer, footer + 8)
    try {
      const file = new ParquetFile(name, parts, kit, kit.parquetMetadata(tail, { geoparquet: false }))
      const rows = file.#metadata.row_groups.map((group) => Number(group.num_rows))
      if (!rows.every((count) => count >= 0) || rows.reduce((a, b) => a + b, 0) > MOST_FILES)
        throw new Error(`it has more than ${MOST_FILES.toLocaleString('en')} rows, or a number that is none`)
      return file
    } catch (error) {
      throw malformed(name, `cannot be read as Parquet: ${(error as Error).message}`, undefined, error)
    }
  }

  /**
   * The values of a column in the order of the rows, a page at a time; null where there is none.
   *
   * Throws E_DATA_TRUNCATED and E_DATA_FORMAT.
   */
  async *pages(column: Column): AsyncGenerator<(Value | null)[]> {
    for (const { columns, num_rows: rows } of this.#metadata.row_groups) {
      const key = JSON.stringify(column.path)
      const chunk = columns.find(
        ({ meta_data: data }) => JSON.stringify(data?.path_in_schema) === key,
      )?.meta_data
      if (!chunk)
        throw malformed(
          this.name,
          `has a row group without its column ${column.path.join('.')}, or encrypted`,
        )
      const paged = { type: column.type, codec: chunk.codec, levels: column.levels }
      let dictionary: ArrayLike<Value> | undefined
      let at = Number(chunk.dictionary_page_offset || chunk.data_page_offset)
      for (let left = Number(rows); left > 0;) {
        const { header, body, end } = await this.#page(at)
        at = end
        try {
          if (header.type === 'DICTIONARY_PAGE') dictionary = readDictionary(this.#kit, header, body, paged)
          else if (header.type !== 'INDEX_PAGE') {
            const values = readPage(this.#kit, header, body, paged, dictionary, left)
            left -= values.length
            yield values
          }
        } catch (error) {
          throw this.#damaged(error)
        }
      }
    }
  }

  async #page(at: number) {
    const head = await this.#parts.read(at, LARGEST_HEADER)
    if (head.length === 0) throw truncated(this.name)
    const reader = { view: new DataView(head.buffer), offset: 0 }
    try {
      const header = this.#kit.parquetHeader(reader)
      const { compressed_page_size: size } = header
      if (!(size >= 0 && size <= LARGEST_PAGE)) throw new Error(`a page has ${size} bytes`)
      const end = at + reader.offset + size
      if (end > this.#parts.size) throw truncated(this.name)
      return { header, end, body: await this.#parts.read(at + reader.offset, size) }
    } catch (error) {
      throw this.#damaged(error)
    }
  }

  #damaged(error: unknown): ConvoyError {
    if (error instanceof ConvoyError) return error
    const { message } = error as Error
    return error instanceof CodecError
      ? malformed(this.name, message, 'Write it again, plain and packed with snappy.', error)
      : malformed(this.name, `cannot be read as Parquet: ${message}`, undefined, error)
  }
}

function malformed(
  name: string,
  what: string,
  remedy = 'Fetch or write the file again.',
  cause?: unknown,
): ConvoyError {
  return new ConvoyError('E_DATA_FORMAT', `${name} ${what}`, remedy, { cause })
}

function truncated(name: string): ConvoyError {
  return new ConvoyError('E_DATA_TRUNCATED', `${name} ends too early`, 'Fetch or write the file again.')
}

/** The columns of a schema that have one value a row. */
function columnsOf({ children }: SchemaTree, levels: number): Column[] {
  return children.flatMap((child): Column[] => {
    const { repetition_type: repetition, type, converted_type: kind, logical_type: logical } = child.element
    if (repetition === 'REPEATED') return []
    const own = levels + Number(repetition === 'OPTIONAL')
    if (child.children.length > 0) return columnsOf(child, own)
    if (type !== 'INT32' && type !== 'INT64' && type !== 'BYTE_ARRAY') return []
    const isText = kind === 'UTF8' || logical?.type === 'STRING'
    return [{ path: child.path, type, isText, levels: own }]
  })
}

function featuresOf({ key_value_metadata: notes }: FileMetaData): Record<string, Feature> {
  const note = notes?.find(({ key }) => key === 'huggingface')?.value
  if (note === undefined) return {}
  const { info } = JSON.parse(note) as { info?: { features?: Record<string, Feature | null> } }
  return Object.fromEntries(
    Object.entries(info?.features ?? {}).flatMap(([name, feature]) => {
      const { _type: type, names } = feature ?? {}
      if (typeof type !== 'string') return []
      const known = Array.isArray(names) && names.every((label) => typeof label === 'string')
      return [[name, known ? { _type: type, names } : { _type: type }]]
    }),
  )
}

/** A label's text: a class's name where the file has them, else the number. Undefined where it is null or no class. */
export function labelText(value: Value | null, names: readonly string[] | undefined): string | undefined {
  if (value === null) return undefined
  if (typeof value === 'object') return Buffer.from(value).toString()
  return names ? names[Number(value)] : String(value)
}

/** Opens a Parquet file of a source: in parts where it lies on the disk, else in memory. Throws as `ParquetFile.open`, and E_DATA_NOT_FOUND. */
export async function withParquet<F extends SourceFile, T>(
  source: Source<F>,
  file: F,
  use: (parquet: ParquetFile) => Promise<T>,
): Promise<T> {
  if (file.problem !== undefined) throw malformed(file.path, file.problem)
  if (source.root === undefined) {
    let done: Promise<T> | undefined
    await source.read(
      [file],
      async (_, bytes) => {
        done = ParquetFile.open(file.path, partsOf(bytes)).then(use)
        await done
      },
      (_, reason) => {
        throw malformed(file.path, reason)
      },
    )
    return done!
  }
  await using handle = await open(path.join(source.root, file.path)).catch((error: Error) => {
    const message = `${file.path} cannot be read: ${error.message}`
    throw new ConvoyError('E_DATA_NOT_FOUND', message, 'Check who may read it.', { cause: error })
  })
  const { size } = await handle.stat()
  const read = async (offset: number, length: number) => {
    const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)))
    const { bytesRead } = await handle.read(bytes, 0, bytes.length, offset)
    return bytesRead === bytes.length ? bytes : bytes.slice(0, bytesRead)
  }
  return await use(await ParquetFile.open(file.path, { size, read }))
}
