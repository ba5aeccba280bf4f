import { ConvoyError } from '@convoy/errors'
import { rmSync, writeFileSync } from 'node:fs'

/** How often the file is written, in milliseconds. */
const INTERVAL = 5_000

/**
 * Keeps a file that says `joined` or `looking` and is written anew every 5 s while this thread runs. A probe that reads its
 * time and its word costs a supervisor nothing, where asking a worker over the network would need a port.
 *
 * @returns Ends it, and removes the file. Throws E_USAGE where the file cannot be written.
 */
export function keepHealthFile(file: string, joined: () => boolean): () => void {
  const write = () => writeFileSync(file, joined() ? 'joined\n' : 'looking\n')
  try {
    write()
  } catch (error) {
    throw new ConvoyError(
      'E_USAGE',
      `cannot write ${file}: ${(error as Error).message}`,
      'Check --health-file.',
    )
  }
  const timer = setInterval(() => {
    try {
      write()
    } catch {
      // A probe sees the old time, which is all that it is there for.
    }
  }, INTERVAL)
  return () => {
    clearInterval(timer)
    rmSync(file, { force: true })
  }
}
