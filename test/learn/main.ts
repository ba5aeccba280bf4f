import { recipes, type DoneEvent } from '@convoy/coordinator'
import { asConvoyError, ConvoyError } from '@convoy/errors'
import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { duration, grouped, percent } from '../../apps/cli/src/format.ts'
import { Convoy, type Line } from '../convoy.ts'
import {
  changes,
  drawing,
  flags,
  mean,
  optionsOf,
  parse,
  partsOf,
  readRun,
  runName,
  summarise,
  timeToGo,
  type Options,
  type Result,
  type Run,
  type Settings,
} from './learn.ts'

const HELP = `npm run bench:learn -- [options] [options of convoy train]: whole runs of a recipe, one a seed, and what they come to
  --recipe NAME   of ${Object.keys(recipes).join()} (fast)
  --seeds N,N,…   (1,2,3; with --parts 1,2)
  --parts         the recipe with one part changed at a time, at the work of about 2 full-size epochs, on 5,000 held-out images:
                  ${Object.keys(changes).join(', ')}
  --runs DIR      where runs are kept (runs/learn); one that was cut off is gone on with, one that is finished only read
  --svg FILE      draw accuracy over work
  --json          one JSON object a line, the summary last
All options of convoy train but --name, --seed, --port and --stay go on to it: --data (CONVOY_DATA, or cifar10), --epochs, --limit-train,
--hold-out, --workers, … Ctrl-C ends it; the same command goes on.`

/** Variables that say what a process finds on its machine, not what it does. */
const MACHINE = ['CONVOY_CACHE', 'CONVOY_CUDA', 'CONVOY_ONEDNN']
const environment = Object.fromEntries(
  MACHINE.flatMap((key) => (process.env[key] ? [[key, process.env[key]]] : [])),
)
/** Milliseconds within which two signals are one Ctrl-C, which npm hands on beside the terminal. */
const ONCE = 1_000

/** The process at work. It has no terminal, so that Ctrl-C reaches it once: at a second signal it saves nothing. */
let convoy: Convoy | undefined
let interruptedAt: number | undefined
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    if (interruptedAt === undefined) {
      interruptedAt = performance.now()
      convoy?.child.kill('SIGINT')
    } else if (performance.now() - interruptedAt > ONCE) {
      convoy?.child.kill('SIGKILL')
      process.exit(130)
    }
  })

class Interrupted extends Error {}

/** Runs `convoy`, telling the lines so far now and then, and gives them when it has ended. */
async function call(
  args: readonly string[],
  watch?: (lines: readonly Line[]) => void,
): Promise<readonly Line[]> {
  if (interruptedAt !== undefined) throw new Interrupted()
  convoy = new Convoy([...args, '--json'], environment, true)
  const { lines } = convoy
  const timer = watch && setInterval(() => watch(lines), 1_000)
  const code = await convoy.ended.finally(() => clearInterval(timer))
  watch?.(lines)
  if (interruptedAt !== undefined) throw new Interrupted()
  if (code === 0) return lines
  const error = lines.findLast(({ event }) => event === 'error')
  const why = error ? `${String(error['code'])}: ${String(error['message'])}` : convoy.text.slice(-2_000)
  throw new ConvoyError('E_RUN', `convoy ${args[0]} ended with ${code}, ${why}`, REMEDY)
}
const REMEDY = 'What was trained is kept: the same command goes on with it.'

/** Tells a person on the error output how far a run is: as it goes on a terminal, else after each test. */
function watcher(title: string, left: number): (lines: readonly Line[]) => void {
  const begun = performance.now()
  let first: Line | undefined
  let told = 0
  return (lines) => {
    const start = lines.find(({ event }) => event === 'start')
    const step = lines.findLast(({ event }) => event === 'step')
    if (!start || !step) return
    first ??= step
    const test = lines.findLast(({ event }) => event === 'test')
    const [work, total] = [Number(step['work']), Number(start['work'])]
    const seconds = (performance.now() - begun) / 1000
    const toGo = timeToGo(seconds, Number(first['work']), work, total)
    const all = toGo + (left * (seconds * total)) / (work - Number(first['work']))
    const text = [
      `${title}: epoch ${Number(step['epoch']) + 1} of ${String(start['epochs'])}`,
      `work ${work.toFixed(2)} of ${total.toFixed(2)}`,
      `cost ${Number(step['cost1000']).toFixed(3)}`,
      ...(test ? [`test ${percent(Number(test['testAccuracy']))}`] : []),
      `${duration(toGo)} to go${left > 0 ? `, ${duration(all)} with the other runs` : ''}`,
    ].join(', ')
    const tests = lines.filter(({ event }) => event === 'test').length
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${text}`)
    else if (tests > told) process.stderr.write(`${text}\n`)
    told = tests
  }
}

/** Trains a run to its end, or reads it where it is finished. */
async function train(
  { runs, recipe }: Settings,
  ...[what, seed, options, left]: [what: string, seed: number, options: Options, left: number]
): Promise<Run & { name: string; done: DoneEvent }> {
  const name = runName(`${recipe}${what}`, seed, options)
  const directory = path.join(runs, name)
  let run = await readRun(directory)
  if (!run.done) {
    const about = ['--name', name, '--runs', runs, '--seed', String(seed), '--port', '0']
    await call(['train', ...flags(options), ...about], watcher(`${recipe}${what}, seed ${seed}`, left))
    if (process.stderr.isTTY) process.stderr.write('\r\x1b[K')
    run = await readRun(directory)
  }
  const { done } = run
  if (!done) throw new ConvoyError('E_RUN', `${name} ended before it was finished`, REMEDY)
  return { ...run, name, done }
}

/** Options of the workers, which `convoy evaluate` has as well. */
const workers = ({ given }: Settings) =>
  flags(
    Object.fromEntries(
      ['workers', 'engine', 'precision', 'threads', 'device', 'gpu'].map((key) => [key, given[key]]),
    ),
  )

async function wholeRuns(settings: Settings): Promise<void> {
  const { recipe, seeds, runs, json, svg, given } = settings
  const options = { ...optionsOf(recipe), ...given }
  const results: Result[] = []
  const drawn: { seed: number; run: Run }[] = []
  const row = (...cells: unknown[]) => console.log(cells.map((cell) => String(cell).padStart(11)).join(''))
  if (!json) row('seed', 'epochs', 'work', 'images', 'time', 'accuracy', 'with flip')
  for (const [i, seed] of seeds.entries()) {
    const { name, done, ...run } = await train(settings, '', seed, options, seeds.length - i - 1)
    const about = ['--run', name, '--runs', runs, '--flip', ...workers(settings)]
    const evaluation = (await call(['evaluate', ...about])).find(({ event }) => event === 'evaluation')!
    const { epoch: epochs, work, seconds, parametersSha256 } = done
    const result: Result = {
      ...{ seed, epochs, work, images: run.images, seconds },
      accuracy: evaluation['accuracy'] as number,
      accuracyWithFlip: (evaluation['flipped'] as { accuracy: number }).accuracy,
      parametersSha256,
    }
    results.push(result)
    drawn.push({ seed, run: { ...run, done } })
    if (json) console.log(JSON.stringify({ event: 'run', recipe, ...result }))
    else
      row(
        ...[seed, epochs, work.toFixed(2), grouped(run.images), duration(seconds)],
        ...[percent(result.accuracy), percent(result.accuracyWithFlip)],
      )
  }
  const summary = summarise(recipe, results)
  const { accuracy, accuracyWithFlip, spread, work, seconds, ratioTo350 } = summary
  if (json) console.log(JSON.stringify(summary))
  else {
    const cells = [work.toFixed(2), '', duration(seconds), percent(accuracy), percent(accuracyWithFlip)]
    row('mean', '', ...cells)
    console.log(
      `${recipe}: ${percent(accuracy)} in the mean (largest less smallest: ${percent(spread)}), ${ratioTo350.toFixed(1)} times less work than 350 epochs`,
    )
  }
  const figure = svg === undefined ? undefined : drawing(recipe, drawn)
  if (figure !== undefined) writeFileSync(svg!, `${figure}\n`)
}

async function byParts(settings: Settings): Promise<void> {
  const { recipe, seeds, json, given } = settings
  const parts = partsOf(recipe, given)
  let whole = NaN
  for (const [i, { name, changed, options }] of parts.entries()) {
    const accuracies: (number | null)[] = []
    let [work, epochs] = [NaN, NaN]
    for (const [j, seed] of seeds.entries()) {
      const left = (parts.length - i) * seeds.length - j - 1
      try {
        const { done } = await train(settings, `-${name}`, seed, options, left)
        accuracies.push(done.testAccuracy)
        ;({ work, epoch: epochs } = done)
      } catch (error) {
        // That it does not learn is an answer, too.
        if (!(error instanceof ConvoyError) || !error.message.includes('E_DIVERGED')) throw error
        accuracies.push(null)
      }
    }
    const accuracy = accuracies.includes(null) ? NaN : mean(accuracies as number[])
    if (i === 0) whole = accuracy
    const part = { part: name, seeds, epochs, work, accuracy, accuracies, besideWhole: accuracy - whole }
    // Of JSON, numbers that there are not become null, and what was taken out is told by null as well.
    const told = Object.fromEntries(Object.entries(changed).map(([key, value]) => [key, value ?? null]))
    if (json) console.log(JSON.stringify({ event: 'part', recipe, ...part, changed: told }))
    else
      console.log(
        `${name.padEnd(20)} ${Number.isNaN(accuracy) ? 'diverged' : percent(accuracy)}${i === 0 ? '' : `  ${part.besideWhole < 0 ? '' : '+'}${(100 * part.besideWhole).toFixed(2)} beside the whole`}  (work ${work.toFixed(2)})`,
      )
  }
}

try {
  const settings = parse(process.argv.slice(2), process.env)
  if (settings.help) console.log(HELP)
  else await (settings.parts ? byParts(settings) : wholeRuns(settings))
} catch (error) {
  if (error instanceof Interrupted) {
    process.stderr.write('\nstopped; the same command goes on\n')
    process.exitCode = 130
  } else {
    const told = asConvoyError(error)
    process.stderr.write(`${told.toText()}\n`)
    process.exitCode = told.code === 'E_USAGE' ? 2 : 1
  }
}
