import { execFile, execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { root, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

/** A fresh checkout of the last commit as Windows' git makes it, in a folder of that name, and what `./convoy --version` says there. */
function checkOut(name: string): { where: string; text: string; status: number | null } {
  const where = path.join(folder, name)
  execFileSync('git', ['clone', '-q', '-c', 'core.autocrlf=true', root, where])
  symlinkSync(path.join(root, 'node_modules'), path.join(where, 'node_modules'))
  const { stdout, stderr, status } = spawnSync(path.join(where, 'convoy'), ['--version'], {
    encoding: 'utf8',
  })
  return { where, text: stdout + stderr, status }
}

// In an archive of the sources, or an image, there is no repository.
const git = existsSync(path.join(root, '.git'))
// It builds everything anew.
const timeout = 600_000
describe.skipIf(!git)('a checkout (skipped without a git repository)', { timeout }, () => {
  it('with core.autocrlf, in a path with a blank, an umlaut and a percent sign, runs', () => {
    const { where, text, status } = checkOut('a ü 50%25')
    expect(text).toMatch(/\d+\.\d+\.\d+/)
    expect(status).toBe(0)
    for (const file of ['convoy', 'docker/install.sh', 'apps/cli/src/main.ts'])
      expect(readFileSync(path.join(where, file), 'utf8')).not.toContain('\r')
  })

  it("answers npx nx itself where nothing is installed, and fetches no other project's", () => {
    const where = path.join(folder, 'bare')
    execFileSync('git', ['clone', '-q', root, where])
    const { stdout, stderr, status } = spawnSync('npx', ['nx', '--version'], {
      cwd: where,
      encoding: 'utf8',
      env: { ...process.env, npm_config_offline: 'true', npm_config_cache: path.join(folder, 'no-cache') },
    })
    expect(stdout + stderr).toMatch(/^installing packages[^]*^E_INSTALL/m)
    expect(status).toBe(1)
  })

  it('installs once where two commands begin at once, and takes no notice of a lock whose command is gone', async () => {
    const where = path.join(folder, 'twice')
    execFileSync('git', ['clone', '-q', root, where])
    // A stand-in for npm that takes a while, and counts how often it was there at once.
    const bin = path.join(folder, 'bin')
    mkdirSync(bin)
    const busy =
      'mkdir busy || echo together >> calls; echo called >> calls; sleep 2; rmdir busy; mkdir -p node_modules'
    writeFileSync(path.join(bin, 'npm'), `#!/bin/sh\n${busy}\n`, { mode: 0o755 })
    // Of a process that has ended.
    const { pid } = spawnSync('true')
    writeFileSync(path.join(where, '.convoy-installing'), String(pid))
    const script = "import('./tools/install.mjs').then(({ install }) => install(false))"
    const commands = [1, 2, 3].map(() =>
      promisify(execFile)(process.execPath, ['-e', script], {
        cwd: where,
        env: { ...process.env, PATH: `${bin}:${process.env['PATH']}` },
      }),
    )
    const said = (await Promise.all(commands)).map(({ stderr }) => stderr)
    expect(readFileSync(path.join(where, 'calls'), 'utf8')).toBe('called\n')
    expect(said.filter((text) => text.includes('installing packages'))).toHaveLength(1)
    expect(existsSync(path.join(where, '.convoy-installing'))).toBe(false)
  })

  it('says so where the path has a #, below which the page cannot be built', () => {
    const { text, status } = checkOut('issue #18')
    expect(text).toMatch(/^E_BUILD: .*issue #18\n.*without #/m)
    expect(status).toBe(1)
  })
})
