// What `./convoy` runs: installs and builds where that is due, then runs the program.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { fail, install } from './install.mjs'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const dist = path.join(root, 'dist')
/** Builds that are kept: a run that started from an older one may still start workers from it. */
const KEPT_BUILDS = 3

/** What is locked, and names, sizes and times of all sources: changes with any edit, and takes milliseconds. */
function fingerprint(locked) {
  const hash = createHash('sha256').update(locked)
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
function build(locked) {
  const folder = path.join(dist, fingerprint(locked).slice(0, 16))
  if (existsSync(folder)) return folder
  if (/[#?]/.test(root)) {
    fail(
      'E_BUILD',
      `Vite, which builds the page, cannot do so below ${root}`,
      'Move it to a path without # and ?.',
    )
  }
  process.stderr.write('building …\n')
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

const test = process.argv[2] === 'test'
const locked = install(test)
if (test) {
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
  const program = path.join(build(locked), 'convoy.mjs')
  process.argv[1] = program
  await import(pathToFileURL(program).href)
}
