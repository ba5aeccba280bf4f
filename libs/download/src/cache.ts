import { accessSync, constants, existsSync, lstatSync, mkdirSync, mkdtempSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import path from 'node:path'

/** The folder taken in place of a home, once it was needed. */
let temporary: string | undefined

/**
 * Where Convoy keeps what it fetched and converted: `CONVOY_CACHE`, or the user's cache folder. Where there is no home, or one
 * in which it cannot be made (containers with a user of no name have none, or /), a folder of this user's own among the temporary
 * files, which is told once.
 */
export function cacheDirectory(
  environment: NodeJS.ProcessEnv,
  warn: (text: string) => void = () => {},
): string {
  if (environment['CONVOY_CACHE']) return environment['CONVOY_CACHE']
  if (environment['XDG_CACHE_HOME']) return path.join(environment['XDG_CACHE_HOME'], 'convoy')
  const home = homeOf(environment)
  const usual = home === undefined ? undefined : path.join(home, '.cache', 'convoy')
  if (usual !== undefined && (existsSync(usual) || writable(path.dirname(usual)))) return usual
  if (temporary === undefined) {
    temporary = ownTemporary()
    const why = home === undefined ? 'there is no home folder' : `${home} cannot be written to`
    warn(`${why}: what is fetched and converted is kept in ${temporary}; CONVOY_CACHE names another place`)
  }
  return temporary
}

/** The user's home, or undefined where there is none. */
function homeOf(environment: NodeJS.ProcessEnv): string | undefined {
  try {
    return environment['HOME'] || homedir() || undefined
  } catch {
    // A user without an entry among the users.
    return undefined
  }
}

/** Whether a folder, or the nearest one above it that is there, can be written to. */
function writable(folder: string): boolean {
  const above = path.dirname(folder)
  if (!existsSync(folder) && above !== folder) return writable(above)
  try {
    accessSync(folder, constants.W_OK)
    return true
  } catch {
    return false
  }
}

/** A folder that others can neither read nor have put in place: libraries are loaded from it. */
function ownTemporary(): string {
  const user = process.getuid?.() ?? 0
  const folder = path.join(tmpdir(), `convoy-${user}`)
  try {
    mkdirSync(folder, { mode: 0o700 })
    return folder
  } catch {
    // It is there, or cannot be made.
  }
  try {
    const found = lstatSync(folder)
    if (found.isDirectory() && found.uid === user && (found.mode & 0o077) === 0) return folder
    return mkdtempSync(`${folder}-`)
  } catch {
    // No temporary files either: whoever writes there says what is wrong.
    return folder
  }
}
