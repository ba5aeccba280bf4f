import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { pipeline } from 'node:stream/promises'
import { loadFetch, request, withoutCredentials } from './request.ts'

export interface DownloadOptions {
  /** What it is, for progress. */
  readonly what: string
  readonly url: string
  /** The file that receives it; where some of it is there already, the rest is fetched. */
  readonly partial: string
  /** No answer within this is a no, in milliseconds. */
  readonly timeout: number
  readonly progress: (text: string) => void
  readonly environment: NodeJS.ProcessEnv
  readonly signal?: AbortSignal | undefined
}

/** Digest of a file, in hexadecimal. */
export async function checksum(algorithm: 'md5' | 'sha256', file: string): Promise<string> {
  const hash = createHash(algorithm)
  await pipeline(createReadStream(file), hash)
  return hash.digest('hex')
}

/**
 * Fetches a file, going on where a broken fetch stopped. Throws an Error that names the address where there is no answer or it
 * breaks off; what came is kept.
 */
export async function download(options: DownloadOptions): Promise<void> {
  try {
    await receive(options)
  } catch (error) {
    const address = withoutCredentials(options.url)
    throw new Error(`${address} could not be fetched: ${fetchReason(error)}`, { cause: error })
  }
}

/** What was in the way of a fetch, in words: `fetch` itself only says that it failed. */
export function fetchReason(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  const { message, code } = (error.cause instanceof Error ? error.cause : error) as NodeJS.ErrnoException
  // Where a name has several addresses, the message is empty.
  return message || code || error.message
}

async function receive(options: DownloadOptions): Promise<void> {
  const { what, url, partial, timeout, progress, environment, signal } = options
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
    let done = resumed ? have : 0
    const total = done + Number(response.headers.get('content-length') ?? NaN)
    const started = performance.now()
    const begun = done
    // Written piece by piece, so that what came before a break stays.
    await using into = await open(partial, resumed ? 'a' : 'w')
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      clearTimeout(watch)
      watch = setTimeout(() => abort.abort(new Error('the answer broke off')), Math.max(timeout, 30_000))
      await into.writeFile(chunk)
      done += chunk.length
      const rate = (done - begun) / ((performance.now() - started) / 1000)
      const left = Number.isNaN(total)
        ? ''
        : ` of ${(total / 1e6).toFixed(0)} MB, ETA ${((total - done) / rate).toFixed(0)} s`
      progress(`fetching ${what}: ${(done / 1e6).toFixed(0)}${left}`)
    }
    if (!Number.isNaN(total) && done < total) throw new Error('the answer broke off')
  } finally {
    clearTimeout(watch)
  }
}
