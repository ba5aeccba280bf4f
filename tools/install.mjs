// Installs the locked packages where they are missing.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const modules = path.join(root, 'node_modules')
const stamp = path.join(modules, '.convoy-installed')
/** There while a command installs, with its process id; not in node_modules, which npm empties. */
const lock = path.join(root, '.convoy-installing')
/** Milliseconds after which a lock is of a command that is gone, whoever has its process id now. */
const STALE = 900_000
/** What the programs and the page are built from and with: a fifth of all files. */
const PROGRAMS = ['--workspace=@convoy/cli', '--workspace=@convoy/dashboard']

export function fail(code, message, remedy) {
  process.stderr.write(`${code}: ${message}\n  ${remedy}\n`)
  process.exit(1)
}

const read = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

/** Whether the command that has the lock still runs. */
function isHeld() {
  try {
    if (Date.now() - statSync(lock).mtimeMs > STALE) return false
    process.kill(Number(readFileSync(lock, 'utf8')), 0)
    return true
  } catch (error) {
    // It may be another user's. A lock that is not there any more was let go.
    return error.code === 'EPERM'
  }
}

/** Lets the lock go, if it is this command's. */
function unlock() {
  if (read(lock) === String(process.pid)) rmSync(lock, { force: true })
}

/** Takes the lock, or waits until it is free: two npm in one folder break each other's work. */
function lockOrWait() {
  for (let waited = false; ; waited = true) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
      return
    } catch (error) {
      // Where no file can be made, npm says so.
      if (error.code !== 'EEXIST') return
    }
    if (!waited) process.stderr.write('another command installs the packages; waiting for it …\n')
    // Of one that has just been made, the process id may not be there yet.
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 250)
    if (!isHeld()) rmSync(lock, { force: true })
  }
}

/**
 * Installs the locked packages unless just these are installed. Of two commands at once, one installs and the other waits.
 *
 * @param all Also what checks and tests the repository. What is there already of that is kept up.
 * @returns The hash of what is locked.
 */
export function install(all) {
  const wanted = createHash('sha256')
    .update(read(path.join(root, 'package-lock.json')))
    .digest('hex')
  const programs = `${wanted} programs`
  const isInstalled = () => [wanted, ...(all ? [] : [programs])].includes(read(stamp))
  if (isInstalled()) return wanted
  process.once('exit', unlock)
  lockOrWait()
  if (isInstalled()) {
    unlock()
    return wanted
  }
  const everything = all || existsSync(path.join(modules, 'vitest'))
  process.stderr.write(`installing packages (once, ${everything ? 'a minute' : 'a quarter of a minute'}) …\n`)
  const npm = spawnSync(
    'npm',
    ['ci', ...(everything ? [] : PROGRAMS), '--no-fund', '--no-audit', '--loglevel=error'],
    { cwd: root, stdio: ['ignore', 2, 2], shell: process.platform === 'win32' },
  )
  if (npm.status !== 0) {
    fail(
      'E_INSTALL',
      'npm could not install the packages; its message is above',
      'Check that npm reaches its registry (npm ping) and that this folder is writable, then run the same command again.',
    )
  }
  writeFileSync(stamp, everything ? wanted : programs)
  unlock()
  return wanted
}
