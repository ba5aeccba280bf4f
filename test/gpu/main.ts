import { createCudnnEngine } from '@convoy/engine-cudnn'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { parseArgs } from 'node:util'
import { hashGradients, partNames, parts, type PartName } from './parts.ts'
import { prove, runPart, type Outcome } from './proof.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    out: { type: 'string', default: 'gpu-proof' },
    data: { type: 'string', default: process.env['CONVOY_DATA'] },
    rounds: { type: 'string', default: '5' },
    only: { type: 'string', default: partNames.join() },
    patience: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) {
  console.log(`npm run gpu:proof -- [options]: all that docs/guides/gpu.md asks for on a machine with an NVIDIA GPU, in under 25 minutes
  --out DIR      results, logs and runs (gpu-proof); run again, it keeps what passed and goes on with the rest
  --data SOURCE  real images, as for convoy train (CONVOY_DATA); without them no run is taken to its end
  --rounds N     how often each speed is measured (5); the median counts
  --only PARTS   of these, with commas between
  --patience X   times the minutes that each part may take (1): for a machine that is slow or busy
  --json         one JSON object a line
CONVOY_CUDA names the folder of cuDNN and NVRTC. Ctrl-C stops it; what is done stays. The parts, and the minutes each may take:
${partNames.map((name) => `  ${name.padEnd(14)} ${parts[name].what} (${parts[name].minutes})`).join('\n')}`)
  process.exit(0)
}

const only = values.only.split(',') as PartName[]
const rounds = Number(values.rounds)
const unknown = only.filter((name) => !partNames.includes(name))
const patience = Number(values.patience)
if (unknown.length > 0 || !Number.isInteger(rounds) || rounds < 1 || !(patience > 0)) {
  console.error(
    unknown.length > 0
      ? `E_USAGE: there is no part ${unknown.join()}\n  --only takes ${partNames.join(', ')}.`
      : `E_USAGE: --rounds ${values.rounds} --patience ${values.patience} is not possible\n  --rounds takes a whole number from 1, --patience a number above 0.`,
  )
  process.exit(2)
}
const out = path.resolve(values.out)

/** In words, in one line. */
function line({ part, status, why, seconds, figures }: Outcome): string {
  const told = why ?? JSON.stringify(figures)
  return `${status.padEnd(8)}  ${part.padEnd(10)} ${seconds.toFixed(0).padStart(4)} s  ${told.slice(0, 500)}`
}

async function all(): Promise<number> {
  const stop = new AbortController()
  process.once('SIGINT', () => stop.abort())
  process.once('SIGTERM', () => stop.abort())
  const started = performance.now()
  let left = patience * only.reduce((sum, name) => sum + parts[name].minutes, 0)
  const outcomes = await prove({
    out,
    only,
    args: ['--rounds', String(rounds), ...(values.data === undefined ? [] : ['--data', values.data])],
    signal: stop.signal,
    patience,
    tell(name, outcome) {
      if (!outcome) {
        if (!values.json)
          console.log(`…         ${name}: ${parts[name].what}; ETA of all: ${left} minutes at most`)
        return
      }
      left -= patience * parts[name].minutes
      console.log(values.json ? JSON.stringify({ event: 'part', ...outcome }) : line(outcome))
    },
  })
  const count = (status: Outcome['status']) => outcomes.filter((one) => one.status === status).length
  const summary = {
    passed: count('passed'),
    failed: count('failed'),
    leftOut: count('left out'),
    seconds: (performance.now() - started) / 1000,
  }
  const report = outcomes.map(
    ({ part, status, why, figures }) =>
      `| ${part} | ${status} | ${(why ?? `\`${JSON.stringify(figures)}\``).replaceAll('|', '\\|').replaceAll('\n', ' ')} |`,
  )
  writeFileSync(
    path.join(out, 'report.md'),
    `# Proof on a GPU, ${new Date().toISOString().slice(0, 10)}\n\n| part | came to | figures, or why |\n| --- | --- | --- |\n${report.join('\n')}\n`,
  )
  console.log(
    values.json
      ? JSON.stringify({ event: 'summary', ...summary, report: path.join(out, 'report.md') })
      : `${summary.passed} passed, ${summary.failed} failed, ${summary.leftOut} left out; ${path.join(out, 'report.md')}`,
  )
  if (stop.signal.aborted) return 130
  return summary.failed > 0 || summary.passed === 0 ? 1 : 0
}

if (positionals[0] === 'hash') console.log(await hashGradients(positionals[1] as 'bf16'))
else if (positionals[0] === 'part') {
  const name = positionals[1] as PartName
  const simulated = await createCudnnEngine({ precision: 'float32', device: 0 }).then(
    (engine) => {
      engine.dispose()
      return engine.numerics.instructionSet.startsWith('Simulated GPU')
    },
    () => false,
  )
  await runPart(name, { out, data: values.data, rounds, simulated })
  // An engine's process that had PyTorch beside it must not wait for it.
  process.exit(0)
} else process.exitCode = await all()
