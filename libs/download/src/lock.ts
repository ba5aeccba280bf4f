import path from 'node:path'
import { makeFolder } from './folder.ts'

/** How often to look whether the other process is done, in milliseconds. */
const LOOK = 500

/**
 * Does something to a file or folder that no other process does at the same time, on this machine or on another that shares it:
 * who comes second waits. The folder that it is in is made. Of a process that died the lock is free after ten seconds.
 *
 * @param waiting Called while another has the lock.
 */
export async function alone<T>(place: string, waiting: () => void, act: () => Promise<T>): Promise<T> {
  await makeFolder(path.dirname(place))
  // Loaded here only: it listens to signals and to the end of the process.
  const { lock } = (await import('proper-lockfile')).default
  for (;;) {
    const release = await lock(place, { realpath: false }).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ELOCKED') throw error
      return undefined
    })
    if (!release) {
      waiting()
      await new Promise((resolve) => setTimeout(resolve, LOOK))
      continue
    }
    try {
      return await act()
    } finally {
      // Whoever took the lock from a process that was stopped for a while has it now.
      await release().catch(() => {})
    }
  }
}
