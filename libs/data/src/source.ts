import { ConvoyError } from '@convoy/errors'
import { isParquet } from './names.ts'

/** A file that a folder or archive holds. */
export interface SourceFile {
  /** Its path within, with `/` and without `.`. */
  readonly path: string
  /** In bytes. */
  readonly size: number
  /** Why it cannot be read, where that is known without trying. */
  readonly problem?: string
  /** It is a link that leads to no file, and may have been meant as a folder. */
  readonly lost?: true
  /** Changes when the file does. */
  readonly stamp?: string
}

/** A folder or archive, listed, whose files can be read. */
export interface Source<F extends SourceFile = SourceFile> {
  readonly files: readonly F[]
  readonly folders: readonly string[]
  /** The folder on the disk that paths are seen from, where files can be read in parts. */
  readonly root?: string
  /**
   * Reads some of the files in whatever order suits, a bounded number of bytes at a time, and hands each to `use`: its
   * bytes, or why it could not be read. A file may come twice where another is a link to it.
   */
  read(
    files: readonly F[],
    use: (file: F, bytes: Buffer) => Promise<void>,
    failed: (file: F, reason: string) => void,
  ): Promise<void>
  /** To be called when nothing more is read. */
  readonly close?: () => void
}

/** Files and folders that a source may have: more are taken for an archive made to exhaust memory. */
export const MOST_FILES = 2_000_000
/** Bytes of one file that is read. */
export const LARGEST_FILE = 96 * 2 ** 20
/** Bytes of a Parquet file that is read as a whole, since it is in an archive. */
const LARGEST_PARQUET = 512 * 2 ** 20
/** Bytes of files that are in memory at a time. */
const IN_MEMORY = 96 * 2 ** 20
/** What a file counts at least, so that so many are decoded at a time: enough to keep libvips's threads busy. */
const LEAST = IN_MEMORY / 16

/** Room for so many bytes: who wants more than are free waits, first come first served. */
export class Room {
  readonly #capacity: number
  #free: number
  readonly #waiting: { share: number; go: () => void }[] = []

  constructor(capacity: number) {
    this.#capacity = capacity
    this.#free = capacity
  }

  /** Does `work` while it has `size` bytes of the room, or all of it where that is less. */
  async hold<T>(size: number, work: () => Promise<T>): Promise<T> {
    const share = Math.min(size, this.#capacity)
    if (this.#waiting.length > 0 || share > this.#free)
      await new Promise<void>((go) => this.#waiting.push({ share, go }))
    else this.#free -= share
    try {
      return await work()
    } finally {
      this.#free += share
      for (let next = this.#waiting[0]; next && next.share <= this.#free; next = this.#waiting[0]) {
        this.#waiting.shift()
        this.#free -= next.share
        next.go()
      }
    }
  }
}

/** Room for the files of one reading. */
export function roomForFiles(): { hold: Room['hold'] } {
  const room = new Room(IN_MEMORY)
  return { hold: (size, work) => room.hold(Math.max(size, LEAST), work) }
}

/** Why a file is too large to be read as a whole, where it is. */
export function tooLarge(size: number, name: string): string | undefined {
  const most = isParquet(name) ? LARGEST_PARQUET : LARGEST_FILE
  if (size <= most) return undefined
  return `has ${(size / 2 ** 20).toFixed(0)} MB; up to ${most / 2 ** 20} MB are read`
}

/** Counts what a source lists. Throws E_DATA_FORMAT where it is too much. */
export function countFiles(source: string): () => void {
  let count = 0
  return () => {
    if (++count <= MOST_FILES) return
    throw new ConvoyError(
      'E_DATA_FORMAT',
      `${source} has more than ${MOST_FILES.toLocaleString('en')} files`,
      'Give --data the folder or archive of the images alone.',
    )
  }
}

/** A path of an archive, as parts. Throws E_DATA_FORMAT where it leads out of the archive. */
export function cleanPath(path: string, archive: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  if (!parts.includes('..')) return parts.join('/')
  throw new ConvoyError(
    'E_DATA_FORMAT',
    `${archive} has a name that leads out of it: ${path}`,
    'Make the archive again, from within the folder of the images.',
  )
}

/** A link of an archive. */
export interface Link {
  readonly path: string
  readonly target: string
}

/** Links may lead to links, this often. */
const LONGEST_CHAIN = 16

/** The files that links of an archive stand for, under the links' paths; a link that leads to no file becomes one with a problem. */
export function followLinks<F extends SourceFile>(
  files: readonly F[],
  links: readonly Link[],
): (F | SourceFile)[] {
  if (links.length === 0) return []
  const byPath = new Map(files.map((file) => [file.path, file]))
  const targets = new Map(links.map(({ path, target }) => [path, target]))
  return links.map(({ path }) => {
    let at = path
    for (let i = 0; i < LONGEST_CHAIN && targets.has(at) && !byPath.has(at); i++) at = targets.get(at)!
    const file = byPath.get(at)
    if (file) return { ...file, path }
    const problem = `is a link to ${targets.get(path)}, which is no file of the archive (tar -h follows links)`
    return { path, size: 0, problem, lost: true }
  })
}
