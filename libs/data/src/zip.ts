import { openZip as open, type ZipMember } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import path from 'node:path'
import {
  cleanPath,
  followLinks,
  MOST_FILES,
  roomForFiles,
  tooLarge,
  type Link,
  type Source,
  type SourceFile,
} from './source.ts'

interface ZippedFile extends SourceFile {
  readonly member?: ZipMember
}

/** A symbolic link's target is not longer. */
const LONGEST_TARGET = 4096

/** Lists a .zip. Throws E_DATA_TRUNCATED where it ends too early, E_DATA_FORMAT where it is none or is encrypted. */
export async function openZip(file: string): Promise<Source<ZippedFile>> {
  const files: ZippedFile[] = []
  const links: Link[] = []
  const folders: string[] = []
  try {
    const { members, close } = await open(file, MOST_FILES)
    for (const member of members) {
      const { name, size, kind } = member
      const shown = cleanPath(name, file)
      if (kind === 'folder') folders.push(shown)
      else if (kind === 'link' && size <= LONGEST_TARGET) {
        const target = (await member.bytes()).toString()
        links.push({ path: shown, target: path.posix.normalize(`${path.posix.dirname(shown)}/${target}`) })
      } else {
        const problem = tooLarge(size, shown)
        files.push({ path: shown, size, member, ...(problem === undefined ? {} : { problem }) })
      }
    }
    return {
      files: [...files, ...followLinks(files, links)],
      folders,
      read: readMembers,
      close,
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

async function readMembers(
  files: readonly ZippedFile[],
  use: (file: ZippedFile, bytes: Buffer) => Promise<void>,
  failed: (file: ZippedFile, reason: string) => void,
): Promise<void> {
  const room = roomForFiles()
  await Promise.all(
    files.map((file) =>
      room.hold(file.size, async () => {
        const { member } = file
        if (!member) return failed(file, file.problem ?? 'is no regular file')
        const bytes = await member.bytes().catch((error: Error) => error)
        if (bytes instanceof Error) failed(file, `cannot be unpacked: ${bytes.message}`)
        else await use(file, bytes)
      }),
    ),
  )
}
