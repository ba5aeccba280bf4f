import { ConvoyError } from '@convoy/errors'
import type { ReadEntry } from 'tar'

/** A file of an archive or folder: its path within, with `/`, and how to read it. */
export interface SourceFile {
  readonly path: string
  readonly bytes: Buffer
}

/**
 * All files of a .tar, .tar.gz or .tgz that `wanted` says yes to, in the archive's order. Throws E_DATA_TRUNCATED where it
 * ends too early, E_DATA_FORMAT where it is no archive.
 */
export async function readArchive(file: string, wanted: (path: string) => boolean): Promise<SourceFile[]> {
  const files: SourceFile[] = []
  let entries = 0
  // Not before it is needed: a worker that joins has no archive to read, and should cost its neighbours nothing.
  const { list } = await import('tar')
  try {
    await list({
      file,
      strict: true,
      onReadEntry: (entry: ReadEntry) => {
        entries++
        if (entry.type !== 'File' || !wanted(entry.path)) return entry.resume()
        const parts: Buffer[] = []
        entry.on('data', (part: Buffer) => parts.push(part))
        entry.on('end', () =>
          files.push({ path: entry.path.replace(/^\.\//, ''), bytes: Buffer.concat(parts) }),
        )
      },
    })
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException
    const cut = /unexpected end|truncated|aborted/i.test(message) || code === 'Z_BUF_ERROR'
    throw new ConvoyError(
      cut ? 'E_DATA_TRUNCATED' : 'E_DATA_FORMAT',
      cut ? `${file} ends too early: ${message}` : `${file} cannot be read as an archive: ${message}`,
      'Fetch or make the archive again.',
      { cause: error },
    )
  }
  if (entries === 0)
    throw new ConvoyError(
      'E_DATA_FORMAT',
      `${file} is empty or no archive`,
      'Fetch or make the archive again.',
    )
  return files
}
