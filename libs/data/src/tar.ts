import { meter } from '@convoy/download'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import path from 'node:path'
import type { ReadEntry } from 'tar'
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

/** A file of a .tar: which entry holds its bytes, counted from 0. */
interface TarFile extends SourceFile {
  readonly entry?: number
}

/** Bytes that are read at a time. The parser unpacks a piece at once, to a thousand times as much at most. */
const PIECE = 1 << 16

/**
 * Lists a .tar or .tar.gz, hard and symbolic links resolved. Throws E_DATA_TRUNCATED where it ends too early,
 * E_DATA_FORMAT where it is no archive.
 */
export async function openTar(file: string, progress: (text: string) => void): Promise<Source<TarFile>> {
  const files: TarFile[] = []
  const links: Link[] = []
  const folders: string[] = []
  const count = countFiles(file)
  await scan(file, `listing ${path.basename(file)}`, progress, (entry, number) => {
    count()
    const name = cleanPath(entry.path, file)
    const target = entry.linkpath ?? ''
    switch (entry.type) {
      case 'File':
      case 'OldFile':
      case 'ContiguousFile': {
        const problem = tooLarge(entry.size, name)
        files.push({
          path: name,
          size: entry.size,
          entry: number,
          ...(problem === undefined ? {} : { problem }),
        })
        break
      }
      case 'Link':
        // A hard link's target is a name of the archive; a symbolic link's is seen from where it is.
        links.push({ path: name, target: cleanPath(target, file) })
        break
      case 'SymbolicLink':
        links.push({ path: name, target: path.posix.normalize(`${path.posix.dirname(name)}/${target}`) })
        break
      case 'Directory':
      case 'GNUDumpDir':
        folders.push(name)
        break
      default:
        files.push({ path: name, size: 0, problem: 'is no regular file' })
    }
    entry.resume()
  })
  return {
    files: [...files, ...followLinks(files, links)],
    folders,
    read: (some, use, failed) => readEntries(file, some, use, failed),
  }
}

async function readEntries(
  file: string,
  files: readonly TarFile[],
  use: (file: TarFile, bytes: Buffer) => Promise<void>,
  failed: (file: TarFile, reason: string) => void,
): Promise<void> {
  const wanted = new Map<number, TarFile[]>()
  for (const one of files) {
    if (one.entry === undefined) failed(one, one.problem ?? 'is no regular file')
    else wanted.set(one.entry, [...(wanted.get(one.entry) ?? []), one])
  }
  const room = roomForFiles()
  const uses: Promise<void>[] = []
  // The images tell how far they have come.
  await scan(
    file,
    '',
    () => {},
    (entry, number) => {
      const takers = wanted.get(number)
      if (!takers) return void entry.resume()
      const take = room.hold(entry.size, async () => {
        // What is not yet asked for holds the parser up.
        const bytes = await entry.concat()
        for (const taker of takers) await use(taker, bytes)
      })
      // Awaited below; where the scan fails first, its error is the one.
      take.catch(() => {})
      uses.push(take)
    },
  )
  await Promise.all(uses)
}

/** Goes through an archive once. `visit` must consume each entry. */
async function scan(
  file: string,
  what: string,
  progress: (text: string) => void,
  visit: (entry: ReadEntry, number: number) => void,
): Promise<void> {
  // Not before it is needed: a worker that joins has no archive to read, and should cost its neighbours nothing.
  const { Parser } = await import('tar')
  const input = createReadStream(file, { highWaterMark: PIECE })
  const tell = meter(what, (await stat(file)).size, progress)
  let entries = 0
  let failure: Error | undefined
  const parser = new Parser({
    strict: true,
    onReadEntry: (entry: ReadEntry) => {
      try {
        visit(entry, entries++)
      } catch (error) {
        failure ??= asConvoyError(error)
        entry.resume()
      }
    },
  })
  parser.on('error', (error: Error) => (failure ??= error))
  const ended = once(parser, 'end')
  ended.catch(() => {})
  try {
    for await (const piece of input as AsyncIterable<Buffer>) {
      tell(piece.length)
      const flows = parser.write(piece)
      if (failure) throw failure
      if (!flows) await once(parser, 'drain')
    }
    parser.end()
    if (failure) throw failure
    await ended
  } catch (error) {
    throw unreadable(file, error)
  }
  if (entries === 0) throw unreadable(file, new Error('it is empty or no archive'))
}

function unreadable(file: string, error: unknown): ConvoyError {
  if (error instanceof ConvoyError) return error
  const { message } = asConvoyError(error)
  const cut =
    /unexpected end|truncated|aborted/i.test(message) ||
    (error as NodeJS.ErrnoException).code === 'Z_BUF_ERROR'
  return new ConvoyError(
    cut ? 'E_DATA_TRUNCATED' : 'E_DATA_FORMAT',
    cut ? `${file} ends too early: ${message}` : `${file} cannot be read as an archive: ${message}`,
    'Fetch or make the archive again.',
    { cause: error },
  )
}
