// The whole check: format, lint, types, tests. Ends with one line that counts all of them together.
import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))
const bin = (name) => path.join(root, 'node_modules', '.bin', name)
const scratch = mkdtempSync(path.join(tmpdir(), 'convoy-test-'))
const counts = { passed: 0, failed: 0, skipped: 0 }
/** What failed, which is named once more at the end: the output above is long. */
const failures = []

const seconds = (since) => `${((Date.now() - since) / 1000).toFixed(0)} s`

/** A check that passes or fails as a whole. What it prints is shown in one piece, since others run beside it. */
async function check(title, command, args, env = {}) {
  const started = Date.now()
  const child = spawn(command, args, {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  })
  let text = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (chunk) => (text += chunk))
  const passed = await new Promise((resolve) => {
    child.once('error', (error) => (text += error.message))
    child.once('close', (code) => resolve(code === 0))
  })
  counts[passed ? 'passed' : 'failed']++
  if (!passed) failures.push(`failed: ${title}`)
  console.log(`${text.trim()}\n── ${title}: ${passed ? 'ok' : 'FAILED'} (${seconds(started)})`.trimStart())
}

// The lint takes as long as all the others together.
await Promise.all([
  check('lint', bin('eslint'), ['.'], { NX_DAEMON: 'false' }),
  (async () => {
    // Into the place where every test that runs ./convoy looks for it.
    await check('build', process.execPath, [path.join(root, 'tools', 'launch.mjs'), '--version'])
    const cache = ['--cache', '--cache-strategy', 'content']
    await check('format', bin('prettier'), ['--check', '.', '--log-level', 'warn', ...cache])
    await check('types', bin('tsc'), ['--noEmit'])
    await check('types of the page', bin('tsc'), ['--noEmit', '--project', 'apps/dashboard'])
  })(),
])

console.log('\n── tests')
const started = Date.now()
const report = path.join(scratch, 'vitest.json')
const { status } = spawnSync(
  bin('vitest'),
  ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`, ...process.argv.slice(2)],
  { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
)
const ok = status === 0
console.log(`── tests: ${ok ? 'ok' : 'FAILED'} (${seconds(started)})`)
try {
  const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
    readFileSync(report, 'utf8'),
  )
  counts.passed += numPassedTests
  counts.failed += numFailedTests
  counts.skipped += numPendingTests + numTodoTests
  for (const { name, status: ofFile, message, assertionResults } of testResults) {
    const file = path.relative(root, name)
    for (const { status, fullName, failureMessages } of assertionResults)
      if (status === 'failed') failures.push(`failed: ${file}: ${fullName}\n${failureMessages.join('\n')}`)
      else if (status !== 'passed') console.log(`skipped: ${fullName}`)
    if (ofFile === 'failed' && assertionResults.every(({ status }) => status !== 'failed'))
      failures.push(`failed: ${file}\n${message}`)
  }
  // A file that cannot be loaded has no tests to fail; it fails all the same.
  if (!ok && numFailedTests === 0)
    counts.failed += Math.max(1, testResults.filter(({ status }) => status === 'failed').length)
} catch {
  counts.failed++
  failures.push('failed: the tests, which left no report')
}
for (const failure of failures) console.log(`\n${failure}`)
rmSync(scratch, { recursive: true, force: true })

console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exit(counts.failed === 0 ? 0 : 1)
