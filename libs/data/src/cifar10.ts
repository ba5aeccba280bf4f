import { checksum, download, isOffline, makeFolder, withoutCredentials } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'

/** The official archive: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. */
export const CIFAR10_URL = 'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz'
export const CIFAR10_MD5 = 'c32a1d4ab5d03f1284b67883e8d87530'

export interface FetchOptions {
  readonly directory: string
  /** No answer within this is a no, in milliseconds. */
  readonly timeout: number
  readonly progress: (text: string) => void
  /** Proxies, and whether anything may be fetched. */
  readonly environment: NodeJS.ProcessEnv
}

/** A file to fetch: what it is called in the cache, and its sum. */
export interface Pinned {
  /** What it is, for progress. */
  readonly what: string
  readonly url: string
  readonly name: string
  readonly algorithm: 'md5' | 'sha256'
  readonly sum: string
}

/** The official archive, or another in its place. */
export const officialArchive = (url = CIFAR10_URL, md5 = CIFAR10_MD5): Pinned => ({
  what: 'CIFAR-10',
  url,
  name: 'cifar-10-binary.tar.gz',
  algorithm: 'md5',
  sum: md5,
})

/**
 * Fetches a file of CIFAR-10 into the cache, unless it is there, going on where a broken fetch stopped, and checks its sum.
 *
 * Throws E_DATA_DOWNLOAD where there is no answer, it breaks off or the disk refuses it (what came is kept), E_DATA_CHECKSUM
 * where the file is not the right one (it is removed).
 */
export async function fetchPinned(pinned: Pinned, options: FetchOptions): Promise<string> {
  const { what, url, name, algorithm, sum } = pinned
  const { directory, timeout, progress, environment } = options
  const file = path.join(directory, name)
  if (await stat(file).catch(() => undefined)) return file
  const partial = `${file}.part`
  const again = isOffline(environment) ? 'Leave offline mode' : 'Run again to go on where it stopped'
  const remedy = `${again}; or put the file at ${file} yourself; or use --data FOLDER or --data synthetic.`
  try {
    await makeFolder(directory)
    await download({ what, url, partial, timeout, progress, environment })
  } catch (error) {
    if (isOfDisk(error)) throw refusedByDisk(error as Error, directory)
    throw new ConvoyError('E_DATA_DOWNLOAD', (error as Error).message, remedy, { cause: error })
  }
  const found = await checksum(algorithm, partial)
  if (found !== sum) {
    await rm(partial, { force: true })
    throw new ConvoyError(
      'E_DATA_CHECKSUM',
      `${withoutCredentials(url)} has ${algorithm} ${found} instead of ${sum}`,
      'Run again to fetch it anew, or check what stands between.',
    )
  }
  await rename(partial, file)
  return file
}

// Below /proc a folder that cannot be made is not there.
const DISK = /\b(ENOENT|EACCES|EPERM|EROFS|ENOSPC|EDQUOT|ENOTDIR)\b/

/** Whether it was the disk that refused, and not the network. */
export function isOfDisk(error: unknown): boolean {
  const { code, syscall, cause } = error as NodeJS.ErrnoException
  if (syscall !== undefined && /^(mkdir|open|write)$/.test(syscall)) return DISK.test(code ?? '')
  return cause !== undefined && isOfDisk(cause)
}

function refusedByDisk(error: Error, directory: string): ConvoyError {
  return new ConvoyError(
    'E_DATA_DOWNLOAD',
    `what is fetched cannot be written to ${directory}: ${error.message}`,
    'Set CONVOY_CACHE to a folder that can be written to and has 350 MB left, or use --data FOLDER or --data synthetic.',
    { cause: error },
  )
}
