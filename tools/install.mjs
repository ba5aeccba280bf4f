// Installs the locked packages where they are missing.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const modules = path.join(root, 'node_modules')
const stamp = path.join(modules, '.convoy-installed')
/** What the programs and the page are built from and with: a fifth of all files. */
const PROGRAMS = ['--workspace=@convoy/cli', '--workspace=@convoy/dashboard']

export function fail(code, message, remedy) {
  process.stderr.write(`${code}: ${message}\n  ${remedy}\n`)
  process.exit(1)
}

const read = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

/**
 * Installs the locked packages unless just these are installed.
 *
 * @param all Also what checks and tests the repository. What is there already of that is kept up.
 * @returns The hash of what is locked.
 */
export function install(all) {
  const wanted = createHash('sha256')
    .update(read(path.join(root, 'package-lock.json')))
    .digest('hex')
  const programs = `${wanted} programs`
  const installed = read(stamp)
  if (installed === wanted || (installed === programs && !all)) return wanted
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
  return wanted
}
