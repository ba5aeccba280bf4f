import { ConvoyError } from '@convoy/errors'
import type { Stats } from 'node:fs'
import { readdir, readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { isHidden, isParquet } from './names.ts'
import { countFiles, roomForFiles, tooLarge, type Source, type SourceFile } from './source.ts'

/**
 * Lists a folder with all below it; links are followed, and have their own names. What is hidden is listed, not entered.
 *
 * Throws E_DATA_NOT_FOUND where a folder cannot be read, E_DATA_FORMAT where links lead in a circle.
 */
export async function openFolder(root: string): Promise<Source> {
  const files: SourceFile[] = []
  const folders: string[] = []
  const count = countFiles(root)
  const visit = async (folder: string, above: readonly Stats[]): Promise<void> => {
    for (const name of await namesIn(path.join(root, folder))) {
      count()
      const shown = folder === '' ? name : `${folder}/${name}`
      const found = await stat(path.join(root, shown)).catch((error: NodeJS.ErrnoException) => error)
      if (found instanceof Error) {
        const lost = found.code === 'ENOENT' || found.code === 'ELOOP'
        const problem = lost ? 'is a link that leads nowhere' : `cannot be read: ${found.message}`
        files.push({ path: shown, size: 0, problem, ...(lost ? { lost } : {}) })
      } else if (found.isDirectory()) {
        folders.push(shown)
        if (isHidden(name)) continue
        if (above.some(({ dev, ino }) => dev === found.dev && ino === found.ino)) throw circle(shown)
        await visit(shown, [...above, found])
      } else {
        // Parquet is read in parts.
        const large = isParquet(name) ? undefined : tooLarge(found.size, name)
        const problem = found.isFile() ? large : 'is no regular file'
        const stamp = `${found.size}\0${found.mtimeMs}`
        files.push({ path: shown, size: found.size, stamp, ...(problem === undefined ? {} : { problem }) })
      }
    }
  }
  await visit('', [await stat(root)])
  return { files, folders, root, read: (some, use, failed) => readFiles(root, some, use, failed) }
}

/** Lists a file alone. */
export async function openFile(file: string): Promise<Source> {
  const root = path.dirname(file)
  const files = [{ path: path.basename(file), size: (await stat(file)).size }]
  return { files, folders: [], root, read: (some, use, failed) => readFiles(root, some, use, failed) }
}

function circle(folder: string): ConvoyError {
  return new ConvoyError('E_DATA_FORMAT', `${folder} is a link to a folder that it is in`, 'Remove the link.')
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return (await readdir(folder)).sort()
  } catch (error) {
    throw new ConvoyError(
      'E_DATA_NOT_FOUND',
      `the folder ${folder} cannot be read: ${(error as Error).message}`,
      'Check who may read it.',
      { cause: error },
    )
  }
}

const readFiles = async (
  root: string,
  files: readonly SourceFile[],
  use: (file: SourceFile, bytes: Buffer) => Promise<void>,
  failed: (file: SourceFile, reason: string) => void,
): Promise<void> => {
  const room = roomForFiles()
  await Promise.all(
    files.map((file) =>
      room.hold(file.size, async () => {
        const bytes = await readFile(path.join(root, file.path)).catch((error: Error) => error)
        if (bytes instanceof Error) failed(file, `cannot be read: ${bytes.message}`)
        else await use(file, bytes)
      }),
    ),
  )
}
