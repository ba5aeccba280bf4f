import { ConvoyError } from '@convoy/errors'
import { open } from 'node:fs/promises'
import { openFile } from './folder.ts'
import { isParquet } from './names.ts'
import type { Source } from './source.ts'
import { openTar } from './tar.ts'
import { openZip } from './zip.ts'

/** What archives are called. */
export const ARCHIVE = /\.(tar|tar\.gz|tgz|zip|tar\.xz|txz|tar\.bz2|tbz2?|tar\.zst|7z|rar)$/i

/** Archives that are not read, by their first bytes in hexadecimal, and what unpacks them. */
const OTHERS: readonly (readonly [RegExp, string, string])[] = [
  [/^fd377a585a00/, '.xz', 'tar xf'],
  [/^28b52ffd/, '.zst', 'tar xf'],
  [/^425a68/, '.bz2', 'tar xf'],
  [/^377abcaf271c/, '.7z', '7z x'],
  [/^526172211a07/, '.rar', 'unrar x'],
]

/** Tells an archive or a Parquet file by how it begins, whatever its name. Throws E_DATA_FORMAT where it is none that is read. */
export async function archiveKind(file: string): Promise<'zip' | 'tar' | 'parquet'> {
  const start = Buffer.alloc(512)
  await using handle = await open(file).catch((error: Error) => {
    throw new ConvoyError(
      'E_DATA_NOT_FOUND',
      `${file} cannot be read: ${error.message}`,
      'Check who may read it.',
      {
        cause: error,
      },
    )
  })
  const { bytesRead } = await handle.read(start, 0, start.length, 0)
  const hex = start.toString('hex', 0, 8)
  const other = OTHERS.find(([magic]) => magic.test(hex))
  if (other)
    throw new ConvoyError(
      'E_DATA_FORMAT',
      `${file} is a ${other[1]}, which is not read`,
      `Unpack it first: ${other[2]} ${file}`,
    )
  if (hex.startsWith('504b')) return 'zip'
  if (hex.startsWith('50415231') || isParquet(file)) return 'parquet'
  if (hex.startsWith('1f8b') || start.toString('latin1', 257, 262) === 'ustar' || /\.tar$/i.test(file))
    return 'tar'
  throw new ConvoyError(
    'E_DATA_FORMAT',
    bytesRead === 0
      ? `${file} is empty`
      : `${file} is neither a folder nor a .tar, .tar.gz, .tgz, .zip or .parquet`,
    'Give a folder or archive of train/<class>/* and test/<class>/* images.',
  )
}

/** Lists an archive, or a Parquet file as the one that it has. Throws E_DATA_TRUNCATED where it ends too early, E_DATA_FORMAT where it is none that is read. */
export async function openArchive(file: string, progress: (text: string) => void): Promise<Source> {
  const kind = await archiveKind(file)
  if (kind === 'parquet') return openFile(file)
  return kind === 'zip' ? openZip(file) : openTar(file, progress)
}
