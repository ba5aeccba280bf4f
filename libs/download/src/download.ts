import { ConvoyError, type ErrorCode } from '@convoy/errors'
import { createHash } from 'node:crypto'
import { createReadStream, existsSync } from 'node:fs'
import { open, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import { alone } from './lock.ts'
import { meter } from './meter.ts'
import { isOffline, loadFetch, request, withoutCredentials } from './request.ts'

/** A file whose bytes are known before it is fetched. */
export interface Pinned {
  /** What it is, for progress. */
  readonly what: string
  /** What it is called in the folder that keeps it. */
  readonly name: string
  readonly sha256: string
  /** Where it is to be fetched; not asked where it is there already. Throws an Error that says what is in the way. */
  readonly address: () => string | Promise<string>
  /** For the remedy: what else fetches it, and the settings that are heard beside HTTPS_PROXY. */
  readonly command?: string
  readonly settings?: string
}

export interface FetchOptions {
  readonly progress: (text: string) => void
  readonly environment: NodeJS.ProcessEnv
  /** No answer within this is a no, in milliseconds. */
  readonly timeout: number
  /** The space that the file and what is made of it take, such as `120 MB`. */
  readonly room: string
  readonly signal?: AbortSignal | undefined
  /** The codes of errors where nothing came, and where something else did; E_SETUP unless told otherwise. */
  readonly codes?: readonly [failed: ErrorCode, other: ErrorCode]
  /** For the remedy: what does without the file. */
  readonly instead?: string
}

/**
 * Fetches a file into a folder, unless it is there, going on where a broken fetch stopped; of several processes one fetches while
 * the others wait. Whichever way it came, its sum is checked.
 *
 * @returns Its path. Throws E_SETUP, or what `codes` says, where there is no answer, it breaks off or the disk refuses it (what came is
 * kept), and where the file is another one (it is removed if it was fetched).
 */
export async function fetchPinned(pinned: Pinned, folder: string, options: FetchOptions): Promise<string> {
  const { what, name, command, settings } = pinned
  const { progress, environment, room, codes = ['E_SETUP', 'E_SETUP'], instead } = options
  const file = path.join(folder, name)
  const check = async (at: string, shown: string, remedy: string): Promise<void> => {
    progress(`checking ${what}`)
    const hash = createHash('sha256')
    await pipeline(createReadStream(at), hash)
    const sum = hash.digest('hex')
    if (sum === pinned.sha256) return
    if (at !== file) await rm(at)
    throw new ConvoyError(codes[1], `${shown} has sha256 ${sum} instead of ${pinned.sha256}`, remedy)
  }
  const or = instead === undefined ? '' : `; or ${instead}`
  try {
    if (existsSync(file)) await check(file, file, 'Remove it, and run again to fetch it anew.')
    else
      await alone(
        file,
        () => progress(`another process is fetching ${what}`),
        async () => {
          if (existsSync(file)) return
          const url = await pinned.address()
          await receive(url, `${file}.part`, what, options)
          const remedy = 'Run again to fetch it anew, or check what stands between.'
          await check(`${file}.part`, withoutCredentials(url), remedy)
          await rename(`${file}.part`, file)
        },
      )
    return file
  } catch (error) {
    if (error instanceof ConvoyError) throw error
    const { message } = error as Error
    const again = isOffline(environment) ? 'Leave offline mode' : 'Run again to go on where it stopped'
    const by = command === undefined ? '' : ` (${command})`
    const heard = settings === undefined ? '' : `, ${settings}`
    const [problem, remedy] = isOfDisk(error)
      ? [
          `what is fetched cannot be written to ${folder}: ${message}`,
          `Set CONVOY_CACHE to a folder that can be written to and has ${room} left${or}.`,
        ]
      : [message, `${again}; or put the file${by} at ${file} yourself${or}. Heard: HTTPS_PROXY${heard}.`]
    throw new ConvoyError(codes[0], problem, remedy, { cause: error })
  }
}

// Below /proc a folder that cannot be made is not there.
const DISK = /^(ENOENT|EEXIST|EACCES|EPERM|EROFS|ENOSPC|EDQUOT|ENOTDIR)$/

/** Whether it was the disk that refused, and not the network. */
export function isOfDisk(error: unknown): boolean {
  const { code, syscall, cause } = error as NodeJS.ErrnoException
  if (syscall !== undefined && /^(mkdir|open|write|rename)$/.test(syscall)) return DISK.test(code ?? '')
  return cause !== undefined && isOfDisk(cause)
}

/** What was in the way of a fetch, in words: `fetch` itself only says that it failed. */
export function fetchReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { message, code } = (error.cause instanceof Error ? error.cause : error) as NodeJS.ErrnoException
  // Where a name has several addresses, the message is empty.
  return message || code || error.message
}

/**
 * Receives a file, or the rest of it where some is there. Throws an Error that names the address where there is no answer or it
 * breaks off; what came is kept.
 */
async function receive(url: string, partial: string, what: string, options: FetchOptions): Promise<void> {
  const { timeout, progress, environment, signal } = options
  const have = (await stat(partial).catch(() => undefined))?.size ?? 0
  await loadFetch()
  const abort = new AbortController()
  // Each piece must come within the time-out; the whole may take as long as it takes.
  let watch = setTimeout(() => abort.abort(new Error(`no answer within ${timeout / 1000} s`)), timeout)
  try {
    const response = await request(
      url,
      {
        signal: signal ? AbortSignal.any([signal, abort.signal]) : abort.signal,
        headers: have > 0 ? { range: `bytes=${have}-` } : {},
      },
      environment,
    )
    if (response.status === 416) return
    if (!response.ok || !response.body) throw new Error(`HTTP ${response.status}`)
    const resumed = response.status === 206
    let left = Number(response.headers.get('content-length') ?? NaN)
    const had = resumed ? have : 0
    progress(`fetching ${what}`)
    const tell = meter(`fetching ${what}`, had + left, progress, had)
    // Written piece by piece, so that what came before a break stays.
    await using into = await open(partial, resumed ? 'a' : 'w')
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      clearTimeout(watch)
      watch = setTimeout(() => abort.abort(new Error('the answer broke off')), Math.max(timeout, 30_000))
      await into.writeFile(chunk)
      left -= chunk.length
      tell(chunk.length)
    }
    if (left > 0) throw new Error('the answer broke off')
  } catch (error) {
    const address = withoutCredentials(url)
    throw new Error(`${address} could not be fetched: ${fetchReason(error)}`, { cause: error })
  } finally {
    clearTimeout(watch)
  }
}
