import type { CompressionCodec, DataReader, PageHeader, ParquetType } from 'hyparquet'
import zlib from 'node:zlib'

/** A value of a column: bytes, which text is too, or a number. */
export type Value = Uint8Array | number | bigint
/** Values of a page, or of a dictionary. */
type Values = ArrayLike<Value>

/** A column as far as its pages depend on it. */
export interface PagedColumn {
  readonly type: ParquetType
  readonly codec: CompressionCodec
  /** How many of the column and what it lies in may be null: the level of a value that is there. */
  readonly levels: number
}

/** Bytes of one page: hardly a writer makes one of more than some MB. */
export const LARGEST_PAGE = 256 * 2 ** 20

/** What hyparquet has for files and pages: loaded where there is a Parquet file. */
export async function loadKit() {
  const [file, column, plain] = await Promise.all([
    import('hyparquet'),
    import('hyparquet/src/column.js'),
    import('hyparquet/src/plain.js'),
  ])
  return { ...file, ...column, ...plain }
}
export type Kit = Awaited<ReturnType<typeof loadKit>>

/** Bytes in memory of their own: hyparquet's views of a value reach to the end of the memory, not of the page. */
function own(bytes: Uint8Array): Uint8Array {
  return bytes.byteLength === bytes.buffer.byteLength ? bytes : new Uint8Array(bytes)
}

/** What a page is written with is not read, though nothing is wrong with it. */
export class CodecError extends Error {}

/** Unpacks to `size` bytes. Throws where it is another number of bytes or the codec is none that is read. */
function unpack(kit: Kit, bytes: Uint8Array, size: number, codec: CompressionCodec): Uint8Array {
  if (!(size >= 0 && size <= LARGEST_PAGE))
    throw new Error(
      `a page has ${size} bytes; up to ${LARGEST_PAGE / 2 ** 20} MB are read: write it with smaller row groups`,
    )
  const unpacked = size === 0 ? new Uint8Array() : decompress(kit, bytes, size, codec)
  if (unpacked.length !== size) throw new Error(`a page has ${unpacked.length} bytes, not ${size}`)
  return own(unpacked)
}

function decompress(kit: Kit, bytes: Uint8Array, size: number, codec: CompressionCodec): Uint8Array {
  // Of Node.js 22.15, which the types of 20 do not know.
  const { zstdDecompressSync: unzstd } = zlib as { zstdDecompressSync?: typeof zlib.gunzipSync }
  const most = { maxOutputLength: size }
  if (codec === 'UNCOMPRESSED') return bytes
  if (codec === 'GZIP') return zlib.gunzipSync(bytes, most)
  if (codec === 'BROTLI') return zlib.brotliDecompressSync(bytes, most)
  if (codec === 'ZSTD' && unzstd) return unzstd(bytes, most)
  if (codec !== 'SNAPPY')
    throw new CodecError(
      `is compressed with ${codec}, which ${codec === 'ZSTD' ? `Node.js ${process.versions.node} cannot unpack (22.15 can)` : 'is not read'}`,
    )
  const unpacked = new Uint8Array(size)
  kit.snappyUncompress(bytes, unpacked)
  return unpacked
}

/**
 * Numbers of `width` bits, in runs of one number or packed by eights (Parquet's RLE and bit-packing hybrid). Own code, since
 * hyparquet's believes the length of a run, which in a damaged file is more than memory holds.
 */
function readRuns(bytes: Uint8Array, width: number, count: number): Uint32Array {
  if (width > 32) throw new Error(`numbers of ${width} bits`)
  const numbers = new Uint32Array(count)
  let [at, filled] = [0, 0]
  const next = () => {
    if (at >= bytes.length) throw new Error('runs end too early')
    return bytes[at++]
  }
  while (filled < count) {
    let header = 0
    for (let shift = 0, more = true; more; shift += 7) {
      if (shift > 28) throw new Error('a run has no length')
      const byte = next()
      header += (byte & 127) * 2 ** shift
      more = byte > 127
    }
    const length = Math.floor(header / 2)
    if (header % 2 === 0) {
      let value = 0
      for (let i = 0; i < Math.ceil(width / 8); i++) value += next() * 2 ** (8 * i)
      numbers.fill(value, filled, filled + length)
      filled += length
    } else {
      const end = Math.min(count, filled + length * 8)
      for (let [held, bits] = [0, 0]; filled < end; bits -= width) {
        for (; bits < width; bits += 8) held += next() * 2 ** bits
        numbers[filled++] = held % 2 ** width
        held = Math.floor(held / 2 ** width)
      }
    }
  }
  return numbers
}

const reader = (bytes: Uint8Array): DataReader => ({
  view: new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  offset: 0,
})

function readPlain(kit: Kit, bytes: Uint8Array, type: ParquetType, count: number): Values {
  // No value takes less than four bytes.
  if (!(count >= 0 && count * 4 <= bytes.length)) throw new Error(`a page cannot hold ${count} values`)
  return kit.readPlain(reader(bytes), type, count, undefined)
}

/** The values of a dictionary's page. Throws where it is damaged. */
export function readDictionary(kit: Kit, header: PageHeader, body: Uint8Array, column: PagedColumn): Values {
  const bytes = unpack(kit, body, header.uncompressed_page_size, column.codec)
  return readPlain(kit, bytes, column.type, header.dictionary_page_header?.num_values ?? NaN)
}

/** The levels of a page, if it has any, and its values, unpacked. */
function partsOf(kit: Kit, header: PageHeader, body: Uint8Array, { codec, levels }: PagedColumn) {
  const width = 32 - Math.clz32(levels)
  const size = header.uncompressed_page_size
  if (header.data_page_header_v2) {
    const { num_values: count, encoding, is_compressed: isPacked } = header.data_page_header_v2
    const { repetition_levels_byte_length: before, definition_levels_byte_length: length } =
      header.data_page_header_v2
    if (!(before >= 0 && length >= 0 && before + length <= body.length))
      throw new Error('a page has no levels')
    const rest = new Uint8Array(body.subarray(before + length))
    return {
      ...{ count, encoding },
      levels: (most: number) => readRuns(body.subarray(before, before + length), width, most),
      rest: isPacked === false ? rest : unpack(kit, rest, size - before - length, codec),
    }
  }
  const { num_values: count = NaN, encoding } = header.data_page_header ?? {}
  const bytes = unpack(kit, body, size, codec)
  const length = levels > 0 ? reader(bytes).view.getUint32(0, true) : -4
  return {
    ...{ count, encoding },
    levels: (most: number) => readRuns(bytes.subarray(4, 4 + length), width, most),
    rest: bytes.subarray(4 + length),
  }
}

/**
 * The values of a page of data, null where there is none.
 *
 * @param most rows that the page's row group still has. Throws where the page has more, or is damaged.
 */
export function readPage(
  kit: Kit,
  header: PageHeader,
  body: Uint8Array,
  column: PagedColumn,
  dictionary: Values | undefined,
  most: number,
): (Value | null)[] {
  const { count, encoding, levels, rest } = partsOf(kit, header, body, column)
  if (!(count >= 0 && count <= most))
    throw new Error(`a page has ${count} values where ${most} rows are left`)
  const present = column.levels > 0 ? levels(count) : undefined
  const there = present ? present.reduce((sum, level) => sum + Number(level === column.levels), 0) : count
  let at = 0
  let next: () => Value
  if (encoding === 'PLAIN') {
    const values = there === 0 ? [] : readPlain(kit, rest, column.type, there)
    next = () => values[at++]
  } else if (encoding === 'RLE_DICTIONARY' || encoding === 'PLAIN_DICTIONARY') {
    const numbers = there === 0 ? [] : readRuns(rest.subarray(1), rest[0], there)
    next = () => {
      const value = dictionary?.[numbers[at++]]
      if (value === undefined) throw new Error('a page has values that its dictionary has not')
      return value
    }
  } else throw new CodecError(`is encoded with ${encoding}, which is not read`)
  return Array.from({ length: count }, (_, i) => (present && present[i] !== column.levels ? null : next()))
}
