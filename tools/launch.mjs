// What `./convoy` runs: installs and builds where that is due, then runs the program.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const installedStamp = path.join(root, 'node_modules', '.convoy-installed')
const dist = path.join(root, 'dist')
/** Builds that are kept: a run that started from an older one may still start workers from it. */
const KEPT_BUILDS = 3

function say(text) {
  process.stderr.write(`${text}\n`)
}

function fail(code, message, remedy) {
  say(`${code}: ${message}\n  ${remedy}`)
  process.exit(1)
}

const read = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

/** Installs the locked packages unless just these are installed. */
function install() {
  const wanted = createHash('sha256')
    .update(read(path.join(root, 'package-lock.json')))
    .digest('hex')
  if (read(installedStamp) === wanted) return
  say('installing packages (once, about a minute) …')
  const npm = spawnSync('npm', ['ci', '--no-fund', '--no-audit', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  })
  if (npm.status !== 0) {
    fail(
      'E_INSTALL',
      'npm could not install the packages; its message is above',
      'Check that npm reaches its registry (npm ping) and that this folder is writable, then run the same command again.',
    )
  }
  writeFileSync(installedStamp, wanted)
}

/** Names, sizes and times of all sources: changes with any edit, and takes milliseconds. */
function fingerprint() {
  const hash = createHash('sha256').update(read(installedStamp))
  const visit = (folder) => {
    for (const entry of readdirSync(folder, { withFileTypes: true }).sort((a, b) =>
      a.name < b.name ? -1 : 1,
    )) {
      const file = path.join(folder, entry.name)
      if (entry.isDirectory()) {
        if (entry.name !== 'node_modules') visit(file)
      } else if (!entry.name.endsWith('.test.ts')) {
        const { size, mtimeMs } = statSync(file)
        hash.update(`${file}\0${size}\0${mtimeMs}\n`)
      }
    }
  }
  for (const folder of ['apps', 'libs', 'tools']) visit(path.join(root, folder))
  return hash.digest('hex')
}

/** Builds unless there is a build of just these sources, and returns its folder. */
function build() {
  const folder = path.join(dist, fingerprint().slice(0, 16))
  if (existsSync(folder)) return folder
  if (/[#?]/.test(root)) {
    fail(
      'E_BUILD',
      `Vite, which builds the page, cannot do so below ${root}`,
      'Move it to a path without # and ?.',
    )
  }
  say('building …')
  const unfinished = `${folder}.${process.pid}`
  try {
    // In a process of its own: what building takes of memory would stay with the program.
    const builder = spawnSync(process.execPath, [path.join(root, 'tools', 'build.mjs'), unfinished], {
      stdio: ['ignore', 2, 'pipe'],
      encoding: 'utf8',
    })
    if (builder.status !== 0)
      throw new Error(builder.stderr?.trim() || String(builder.error ?? builder.signal))
    try {
      renameSync(unfinished, folder)
    } catch (error) {
      // Someone else was first with the same build.
      if (!existsSync(folder)) throw error
      rmSync(unfinished, { recursive: true })
    }
    const builds = readdirSync(dist)
      .filter((name) => /^[0-9a-f]{16}$/.test(name))
      .map((name) => ({ name, at: statSync(path.join(dist, name)).mtimeMs }))
      .sort((a, b) => b.at - a.at)
    for (const { name } of builds.slice(KEPT_BUILDS))
      rmSync(path.join(dist, name), { recursive: true, force: true })
    return folder
  } catch (error) {
    rmSync(unfinished, { recursive: true, force: true })
    fail('E_BUILD', error.message, 'Mend the sources, or get a clean checkout.')
  }
}

install()
if (process.argv[2] === 'test') {
  const rest = process.argv.slice(3)
  try {
    execFileSync(process.execPath, [path.join(root, 'tools', 'test.mjs'), ...rest], {
      cwd: root,
      stdio: 'inherit',
    })
  } catch (error) {
    process.exit(error.status ?? 1)
  }
} else {
  const program = path.join(build(), 'convoy.mjs')
  process.argv[1] = program
  await import(pathToFileURL(program).href)
}
