import { createWriteStream } from 'node:fs'
import path from 'node:path'
import { pipeline as connect, Transform, type Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { crc32 } from 'node:zlib'
import type { Entry, ZipFile } from 'yauzl'
import { makeFolder } from './folder.ts'
import { meter } from './meter.ts'

/** A file, folder or symbolic link of a zip archive; a link's bytes are the path that it leads to. */
export class ZipMember {
  readonly #zip: ZipFile
  readonly #entry: Entry
  readonly name: string
  readonly kind: 'file' | 'folder' | 'link'

  constructor(zip: ZipFile, entry: Entry) {
    this.#zip = zip
    this.#entry = entry
    this.name = entry.fileName
    const isLink = ((entry.externalFileAttributes >>> 16) & 0o170000) === 0o120000
    this.kind = this.name.endsWith('/') ? 'folder' : isLink ? 'link' : 'file'
  }

  /** Its bytes when it is unpacked: neither more nor fewer come. */
  get size(): number {
    return this.#entry.uncompressedSize
  }

  /** Unpacks it. The stream fails where there are more or fewer bytes than `size`, or others than its CRC-32 says. */
  async stream(): Promise<Readable> {
    const { crc32: expected } = this.#entry
    let found = 0
    const check = new Transform({
      transform(chunk: Buffer, _encoding, next) {
        found = crc32(chunk, found)
        next(null, chunk)
      },
      flush: (done) => done(found === expected ? null : new Error('it is damaged: its CRC-32 is another')),
    })
    // What the parts say of errors, the last of them says as well.
    return connect(await this.#zip.openReadStreamPromise(this.#entry), check, () => {})
  }

  /** Unpacks it into memory; look at its size before. Throws an Error as `stream` does. */
  async bytes(): Promise<Buffer> {
    return buffer(await this.stream())
  }
}

/** A zip archive that is open. */
export interface Zip {
  readonly members: readonly ZipMember[]
  readonly close: () => void
}

/**
 * Opens a zip archive, ZIP64 included. Throws an Error that says why it cannot be read: it is none or cut off, something in it is encrypted,
 * has a name that leads out of it, or it has more than `most` members.
 */
export async function openZip(file: string, most: number): Promise<Zip> {
  // Loaded here only: most commands unpack nothing.
  const { openPromise } = await import('yauzl')
  const zip = await openPromise(file, { autoClose: false })
  try {
    if (zip.entryCount > most) throw new Error(`it has ${zip.entryCount} files, more than ${most}`)
    const members: ZipMember[] = []
    for await (const entry of zip.eachEntry()) {
      if (entry.isEncrypted()) throw new Error('it is encrypted')
      members.push(new ZipMember(zip, entry))
    }
    return { members, close: () => zip.close() }
  } catch (error) {
    zip.close()
    throw error
  }
}

/** A wheel has fewer files. */
const MOST_FILES = 100_000

/**
 * Unpacks some files of a zip archive into folders that are made.
 *
 * @param target The path that a file goes to, by its name, or undefined where it is not wanted.
 * @returns The paths that were written. Throws an Error where the archive is damaged or the disk refuses.
 */
export async function unzip(
  file: string,
  target: (name: string) => string | undefined,
  progress: (text: string) => void,
): Promise<string[]> {
  const { members, close } = await openZip(file, MOST_FILES)
  const written: string[] = []
  try {
    for (const member of members) {
      const to = target(member.name)
      if (to === undefined) continue
      await makeFolder(path.dirname(to))
      const tell = meter(`unpacking ${path.basename(to)}`, member.size, progress)
      const stream = await member.stream()
      stream.on('data', (chunk: Buffer) => tell(chunk.length))
      await pipeline(stream, createWriteStream(to))
      written.push(to)
    }
  } finally {
    close()
  }
  return written
}
