import { ConvoyError } from '@convoy/errors'
import { rename, rm } from 'node:fs/promises'
import path from 'node:path'
import type { FetchOptions } from './download.ts'
import { makeFolder } from './folder.ts'
import { alone } from './lock.ts'

/**
 * Puts a library into a folder of the cache, whole or not at all; of several processes one does it while the others wait.
 *
 * @param isThere Whether the folder is whole already.
 * @param make Fills a folder that is given the right name afterwards.
 * @returns Whether it was there already. Throws E_SETUP with what stands in the way.
 */
export async function install(
  what: string,
  folder: string,
  isThere: () => boolean,
  make: (unfinished: string) => Promise<void>,
  { progress, room }: Pick<FetchOptions, 'progress' | 'room'>,
): Promise<boolean> {
  if (isThere()) return true
  const home = path.dirname(folder)
  const act = async () => {
    if (isThere()) return true
    const unfinished = `${folder}.${process.pid}.tmp`
    try {
      await makeFolder(unfinished)
      await make(unfinished)
      await rm(folder, { recursive: true, force: true })
      await rename(unfinished, folder)
    } finally {
      await rm(unfinished, { recursive: true, force: true })
    }
    return false
  }
  try {
    return await alone(home, () => progress(`another process is fetching ${what}`), act)
  } catch (error) {
    if (error instanceof ConvoyError) throw error
    throw new ConvoyError(
      'E_SETUP',
      `${what} cannot be put into ${home}: ${(error as Error).message}`,
      `Check that it is writable and has ${room} of space, or name another folder in CONVOY_CACHE.`,
      { cause: error },
    )
  }
}
