import { createWriteStream } from 'node:fs'
import path from 'node:path'
import { Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Entry, ZipFile } from 'yauzl'
import { makeFolder } from './folder.ts'

/**
 * Unpacks some files of a zip archive whose checksum was found right.
 *
 * @param target The path that an entry goes to, by its name, or undefined where it is not wanted.
 * @returns The paths that were written. Throws an Error where the archive is damaged or the disk refuses.
 */
export async function unzip(
  file: string,
  target: (name: string) => string | undefined,
  progress: (text: string) => void,
): Promise<string[]> {
  const { openPromise } = await import('yauzl')
  const zip = await openPromise(file)
  const written: string[] = []
  for await (const entry of zip.eachEntry()) {
    const to = target(entry.fileName)
    if (to === undefined) continue
    await extract(zip, entry, to, progress)
    written.push(to)
  }
  return written
}

/** Entries below this many bytes are unpacked in no time, and without a word. */
const LARGE = 1e6

async function extract(
  zip: ZipFile,
  entry: Entry,
  target: string,
  progress: (text: string) => void,
): Promise<void> {
  await makeFolder(path.dirname(target))
  const { uncompressedSize: total } = entry
  const started = performance.now()
  let done = 0
  const count = new Transform({
    transform(chunk: Buffer, _encoding, next) {
      done += chunk.length
      const seconds = (performance.now() - started) / 1000
      const left = (seconds * (total - done)) / done
      const megabytes = (bytes: number) => (bytes / 1e6).toFixed(0)
      if (total >= LARGE) {
        progress(
          `unpacking ${path.basename(target)}: ${megabytes(done)} of ${megabytes(total)} MB, ETA ${left.toFixed(0)} s`,
        )
      }
      next(null, chunk)
    },
  })
  await pipeline(await zip.openReadStreamPromise(entry), count, createWriteStream(target))
}
