import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import { buffer } from 'node:stream/consumers'
import type { Entry, ZipFile } from 'yauzl'
import {
  cleanPath,
  countFiles,
  followLinks,
  roomForFiles,
  tooLarge,
  type Link,
  type Source,
  type SourceFile,
} from './source.ts'

interface ZippedFile extends SourceFile {
  readonly entry?: Entry
}

/** A symbolic link's target is not longer. */
const LONGEST_TARGET = 4096
const isLink = (entry: Entry) => ((entry.externalFileAttributes >>> 16) & 0o170000) === 0o120000

/** Lists a .zip. Throws E_DATA_TRUNCATED where it ends too early, E_DATA_FORMAT where it is none or is encrypted. */
export async function openZip(file: string): Promise<Source<ZippedFile>> {
  const { openPromise } = await import('yauzl')
  const files: ZippedFile[] = []
  const links: Link[] = []
  const folders: string[] = []
  const count = countFiles(file)
  try {
    const zip = await openPromise(file, { autoClose: false })
    for await (const entry of zip.eachEntry()) {
      count()
      const name = cleanPath(entry.fileName, file)
      if (entry.isEncrypted()) throw new Error('it is encrypted')
      if (entry.fileName.endsWith('/')) folders.push(name)
      else if (isLink(entry) && entry.uncompressedSize <= LONGEST_TARGET) {
        const target = (await buffer(await zip.openReadStreamPromise(entry))).toString()
        links.push({ path: name, target: path.posix.normalize(`${path.posix.dirname(name)}/${target}`) })
      } else {
        const size = entry.uncompressedSize
        const problem = tooLarge(size)
        files.push({ path: name, size, entry, ...(problem === undefined ? {} : { problem }) })
      }
    }
    return {
      files: [...files, ...followLinks(files, links)],
      folders,
      read: (some, use, failed) => readEntries(zip, some, use, failed).finally(() => zip.close()),
    }
  } catch (error) {
    if (error instanceof ConvoyError) throw error
    const { message } = error as Error
    const cut = /truncated|unexpected eof|end of central directory/i.test(message)
    throw new ConvoyError(
      cut ? 'E_DATA_TRUNCATED' : 'E_DATA_FORMAT',
      cut ? `${file} ends too early: ${message}` : `${file} cannot be read as a .zip: ${message}`,
      'Fetch or make the archive again.',
      { cause: error },
    )
  }
}

async function readEntries(
  zip: ZipFile,
  files: readonly ZippedFile[],
  use: (file: ZippedFile, bytes: Buffer) => Promise<void>,
  failed: (file: ZippedFile, reason: string) => void,
): Promise<void> {
  const room = roomForFiles()
  await Promise.all(
    files.map((file) =>
      room.hold(file.size, async () => {
        const { entry } = file
        if (!entry) return failed(file, file.problem ?? 'is no regular file')
        // A stream that gives more or fewer bytes than the entry says is an error.
        const bytes = await zip
          .openReadStreamPromise(entry)
          .then(buffer)
          .catch((error: Error) => error)
        if (bytes instanceof Error) failed(file, `cannot be unpacked: ${bytes.message}`)
        else await use(file, bytes)
      }),
    ),
  )
}
