import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, symlinkSync } from 'node:fs'
import path from 'node:path'
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

  it('says so where the path has a #, below which the page cannot be built', () => {
    const { text, status } = checkOut('issue #18')
    expect(text).toMatch(/^E_BUILD: .*issue #18\n.*without #/m)
    expect(status).toBe(1)
  })
})
