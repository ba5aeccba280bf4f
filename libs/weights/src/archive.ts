import type { ZipMember } from '@convoy/download'
import { unreadable } from './file.ts'

/** The members of a zip archive, by their names. */
export type Members = ReadonlyMap<string, ZipMember>

const WHOLE =
  'Fetch it again, or save it anew: PyTorch writes each CRC-32 unless told not to (set_crc32_options).'

/** Unpacks a member of an archive. Throws E_WEIGHTS_FILE where that is more than `most` bytes, or damaged. */
export async function unpack(member: ZipMember, most: number, file: string): Promise<Uint8Array> {
  const { name, size } = member
  if (size > most) throw unreadable(file, `${name} of it would be ${size} bytes unpacked, more than ${most}`)
  return member.bytes().catch((error: Error) => {
    throw unreadable(file, `${name} of it cannot be unpacked: ${error.message}`, error, WHOLE)
  })
}
