import { makeFolder } from '@convoy/download'
import { createHash } from 'node:crypto'
import { readFile, rename, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { makeDataset, type Dataset } from './dataset.ts'

/** Layout of a cached file: a line of JSON, then train labels, train pixels, test labels and test pixels, raw. */
interface Header {
  readonly version: 1
  readonly name: string
  readonly classes: string[]
  readonly shape: [number, number, number]
  readonly train: number
  readonly test: number
  readonly float: boolean
  readonly fingerprint: string
  readonly notes?: string[]
  readonly skipped?: string[]
}

/** A key for what a conversion depends on. Lists are not to be spread: one of 60,000 files is more than the stack holds. */
export function cacheKey(...parts: readonly (string | number | readonly string[])[]): string {
  return createHash('sha256').update(JSON.stringify(parts.flat())).digest('hex').slice(0, 32)
}

const fileOf = (directory: string, key: string) => path.join(directory, 'datasets', `${key}.dataset`)

/** The data set under a key, or undefined where there is none or its file is torn. Never throws. */
export async function readCached(
  directory: string,
  key: string,
  origin: string,
): Promise<Dataset | undefined> {
  const bytes = await readFile(fileOf(directory, key)).catch(() => undefined)
  const end = bytes?.subarray(0, 1 << 26).indexOf(10) ?? -1
  if (!bytes || end < 0) return undefined
  try {
    const header = JSON.parse(bytes.toString('utf8', 0, end)) as Header
    const { name, classes, shape, float, notes = [], skipped = [] } = header
    // Raw numbers start at a multiple of 8.
    let at = (end + 1 + 7) & ~7
    const next = (length: number) => {
      if (at + length > bytes.length) throw new Error('torn')
      const start = bytes.byteOffset + at
      at += length
      return start
    }
    const volume = shape[0] * shape[1] * shape[2]
    const { buffer } = bytes
    // The pixels stay where they were read; labels after an odd number of bytes have to move.
    const split = (count: number) => {
      const start = next(4 * count)
      const labels = new Int32Array(buffer.slice(start, start + 4 * count))
      const pixels = float
        ? new Float32Array(buffer, next(4 * count * volume), count * volume)
        : new Uint8Array(buffer, next(count * volume), count * volume)
      return { count, labels, pixels }
    }
    const dataset = makeDataset({
      name,
      origin,
      classes,
      shape,
      train: split(header.train),
      test: split(header.test),
      notes,
      skipped,
    })
    return dataset.fingerprint === header.fingerprint ? dataset : undefined
  } catch {
    return undefined
  }
}

/** Keeps a data set under a key: whole, or not at all. Rejects where the disk refuses. */
export async function writeCached(directory: string, key: string, dataset: Dataset): Promise<void> {
  const { name, classes, shape, train, test, fingerprint, notes, skipped } = dataset
  const float = train.pixels instanceof Float32Array
  const header = {
    version: 1,
    name,
    classes,
    shape,
    train: train.count,
    test: test.count,
    float,
    fingerprint,
    notes,
    skipped,
  }
  const line = Buffer.from(`${JSON.stringify(header)}\n`)
  const padding = Buffer.alloc(((line.length + 7) & ~7) - line.length)
  const parts = [train.labels, train.pixels, test.labels, test.pixels].map((view) =>
    Buffer.from(view.buffer, view.byteOffset, view.byteLength),
  )
  const file = fileOf(directory, key)
  const temporary = `${file}.${process.pid}.tmp`
  await makeFolder(path.dirname(file))
  try {
    await writeFile(temporary, Buffer.concat([line, padding, ...parts]))
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
}
