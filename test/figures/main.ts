import { onednnStatus } from '@convoy/engine-onednn'
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { parseArgs } from 'node:util'
import { format } from 'prettier'
import { z } from 'zod'
import { root } from '../convoy.ts'
import { answers } from './answers.ts'
import { allFigures, figures, folder, page, question, readFigures, readme } from './figures.ts'

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    command: { type: 'string' },
    machine: { type: 'string' },
    date: { type: 'string' },
    commit: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
})
const [action, name] = positionals
const known = action === undefined || (action === 'record' && answers[name] !== undefined)
if (values.help || !known) {
  console.log(`npm run figures: writes docs/figures.md and README's table from docs/figures/*.json
COMMAND | npm run figures -- record QUESTION [options]: first puts what a benchmark prints (--json) into docs/figures/QUESTION.json,
  which has its title, intro and command already; all else in it is replaced. QUESTION is one of ${Object.keys(answers).join()}.
  --command TEXT  what was run (the command in the file)
  --machine TEXT  where (this machine)
  --date DATE     when (today)
  --commit HASH   of what (what is checked out)`)
  process.exit(values.help ? 0 : 2)
}

/** This machine, as oneDNN sees its processor. */
function machine(): string {
  const onednn = onednnStatus()
  const instructions = onednn.found ? `, ${onednn.instructionSet}` : ''
  return `${cpus()[0]?.model.trim() ?? process.arch}, ${availableParallelism()} cores${instructions}`
}

/** The commit that is checked out; throws where the code is another. */
function commit(): string {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim()
  const others = git('status', '--porcelain', '--', '.', ':!docs', ':!README.md')
  if (others) throw new Error(`commit first what was measured, or name it by --commit:\n${others}`)
  return git('rev-parse', '--short=7', 'HEAD')
}

async function record(name: string): Promise<void> {
  // At once: in a pipe, this is when the benchmark starts.
  const measured = {
    machine: values.machine ?? machine(),
    date: values.date ?? new Date().toISOString().slice(0, 10),
    commit: values.commit ?? commit(),
  }
  const file = path.join(folder, `${name}.json`)
  if (!existsSync(file))
    throw new Error(`write first docs/figures/${name}.json with title, intro and command`)
  const { title, intro, command } = readFigures(name, question)
  const lines = (await text(process.stdin)).split('\n').filter((line) => line.startsWith('{'))
  const told = {
    title,
    intro,
    command: values.command ?? command,
    ...measured,
    ...answers[name](lines.map((line) => JSON.parse(line) as unknown)),
  }
  const { success, data, error } = figures.safeParse(told)
  if (!success) throw new Error(z.prettifyError(error))
  writeFileSync(file, await format(JSON.stringify(data), { parser: 'json', printWidth: 110 }))
}

try {
  if (action) await record(name)
  const all = allFigures()
  const start = path.join(root, 'README.md')
  writeFileSync(path.join(root, 'docs', 'figures.md'), await page(all))
  writeFileSync(start, await readme(readFileSync(start, 'utf8'), all))
} catch (error) {
  console.error((error as Error).message)
  process.exit(1)
}
