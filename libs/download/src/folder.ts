import { mkdir, stat } from 'node:fs/promises'
import path from 'node:path'

/**
 * Makes a folder and those above it that are missing. Throws what the file system says.
 *
 * `mkdir` with `recursive` does not end below /proc on Node.js 20, where a folder that is there cannot be written to, and says
 * that it is not there.
 */
export async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    // Another process may have been first.
    if (code === 'EEXIST' && (await stat(folder)).isDirectory()) return
    const above = path.dirname(folder)
    if (code !== 'ENOENT' || (await stat(above).catch(() => undefined))) throw error
    await makeFolder(above)
    await makeFolder(folder)
  }
}
