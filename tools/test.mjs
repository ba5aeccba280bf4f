// The whole check: format, lint, types, tests. Ends with one line that counts all of them together.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const bin = (name) => path.join(root, 'node_modules', '.bin', name)
const scratch = mkdtempSync(path.join(tmpdir(), 'convoy-test-'))
const counts = { passed: 0, failed: 0, skipped: 0 }

function run(title, command, args, env = {}) {
  console.log(`\n── ${title}`)
  const started = Date.now()
  const result = spawnSync(command, args, {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  })
  console.log(
    `── ${title}: ${result.status === 0 ? 'ok' : 'FAILED'} (${((Date.now() - started) / 1000).toFixed(0)} s)`,
  )
  return result.status === 0
}

/** A check that passes or fails as a whole. */
function check(title, command, args, env) {
  counts[run(title, command, args, env) ? 'passed' : 'failed']++
}

check('format', bin('prettier'), ['--check', '.', '--log-level', 'warn'])
check('lint', bin('eslint'), ['.'], { NX_DAEMON: 'false' })
check('types', bin('tsc'), ['--noEmit'])
check('types of the page', bin('tsc'), ['--noEmit', '--project', 'apps/dashboard'])
check('build', process.execPath, [path.join(root, 'tools', 'build.mjs')])

const report = path.join(scratch, 'vitest.json')
const ok = run('tests', bin('vitest'), [
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${report}`,
  ...process.argv.slice(2),
])
try {
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
    readFileSync(report, 'utf8'),
  )
  counts.passed += numPassedTests
  counts.failed += numFailedTests
  counts.skipped += numPendingTests + numTodoTests
  for (const { assertionResults } of testResults)
    for (const { status, fullName } of assertionResults)
      if (status !== 'passed' && status !== 'failed') console.log(`skipped: ${fullName}`)
  // A file that cannot be loaded has no tests to fail; it fails all the same.
  if (!ok && numFailedTests === 0)
    counts.failed += Math.max(1, testResults.filter(({ status }) => status === 'failed').length)
} catch {
  counts.failed++
}
rmSync(scratch, { recursive: true, force: true })

console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exit(counts.failed === 0 ? 0 : 1)
