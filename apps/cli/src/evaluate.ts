import {
  coordinatorSchema,
  openEvaluation,
  readCheckpoint,
  readRunConfig,
  CheckpointStore,
  type Score,
} from '@convoy/coordinator'
import { ConvoyError } from '@convoy/errors'
import { buildModel } from '@convoy/model'
import { readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { Display, percent } from './display.ts'
import { defaultWorkers, LocalWorkers } from './local.ts'
import { EXIT, evaluateSchema } from './schemas.ts'
import { collect, settle, type Given } from './options.ts'
import { loadData, styleFor } from './train.ts'

interface Options {
  json?: boolean
  run?: string
  runs?: string
  checkpoint?: string
}

/** The folder of the newest run. Throws E_RUN where there is none. */
async function newestRun(runs: string): Promise<string> {
  const found: { directory: string; at: number }[] = []
  for (const name of await readdir(runs).catch(() => [])) {
    const directory = path.join(runs, name)
    const at = await stat(path.join(directory, 'config.json')).catch(() => undefined)
    if (at) found.push({ directory, at: at.mtimeMs })
  }
  const newest = found.sort((a, b) => b.at - a.at)[0]
  if (newest) return newest.directory
  throw new ConvoyError(
    'E_RUN',
    `there is no run under ${runs}`,
    'Train one with ./convoy train, or give --checkpoint FILE.',
  )
}

/** `convoy evaluate`: the test set, class by class. */
export async function evaluate(given: Given, options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const runs = options.runs ?? 'runs'
  const directory = options.checkpoint
    ? path.dirname(path.dirname(path.resolve(options.checkpoint)))
    : options.run
      ? path.join(runs, options.run)
      : await newestRun(runs)
  const kept = await readRunConfig(directory)
  const trained = settle(coordinatorSchema, kept)
  const values = { ...kept, ...collect(evaluateSchema, given) }
  const config = settle(evaluateSchema, values)

  const checkpoint = options.checkpoint
    ? await readCheckpoint(options.checkpoint)
    : (
        await new CheckpointStore(path.join(directory, 'checkpoints'), 1).newest((_file, error) =>
          display.say(`passed over a bad checkpoint: ${error.message}`),
        )
      )?.checkpoint
  if (!checkpoint) {
    throw new ConvoyError('E_CHECKPOINT', `${directory} has no checkpoint yet`, 'Train for a while first.')
  }
  const dataset = await loadData(values, display)
  const model = buildModel(trained.model, {
    input: dataset.shape,
    classes: dataset.classes.length,
    width: trained.width,
    inputDropout: trained.inputDropout,
    dropout: trained.dropout,
    head: trained.head,
  })
  const begun = performance.now()
  const evaluation = await openEvaluation(model, checkpoint.parameters, dataset, trained, (event) => {
    if (event.event === 'evaluating' || event.event === 'refused') display.show(event)
  })
  let failure: ConvoyError | undefined
  let interrupted = false
  const workers = new LocalWorkers(evaluation.url, config, undefined, (error) => {
    failure ??= error
    evaluation.stop()
  })
  const interrupt = () => {
    interrupted = true
    evaluation.stop()
  }
  process.on('SIGINT', interrupt)
  workers.start(config.workers ?? defaultWorkers(config.threads))
  try {
    const result = await evaluation.run()
    if (failure) throw failure
    if (!result || interrupted) return EXIT.interrupted
    const seconds = (performance.now() - begun) / 1000
    const { score } = result
    if (options.json) {
      const line = {
        event: 'evaluation',
        step: checkpoint.step,
        images: score.count,
        seconds,
        loss: score.loss,
      }
      process.stdout.write(
        `${JSON.stringify({ ...line, accuracy: score.accuracy, classes: dataset.classes, confusion: score.confusion })}\n`,
      )
    } else {
      display.say(`run        ${path.basename(directory)}, step ${checkpoint.step}`)
      display.say(table(score, dataset.classes))
      display.say(
        `accuracy   ${percent(score.accuracy)} of ${score.count} test images, loss ${score.loss.toFixed(4)} (${seconds.toFixed(1)} s)`,
      )
    }
    return EXIT.done
  } finally {
    process.off('SIGINT', interrupt)
    workers.expectEnd()
    await evaluation.close()
    await workers.close()
  }
}

/** Recall and precision of each class, and the confusion matrix: a row is what an image is, a column what it was taken for. */
function table(score: Score, classes: readonly string[]): string {
  const { confusion } = score
  const wide = Math.max(8, ...classes.map((name) => name.length))
  const cell = (text: string | number, width = 7) => String(text).padStart(width)
  const share = (part: number, whole: number) =>
    whole === 0 ? '–' : `${((100 * part) / whole).toFixed(1)} %`
  const head = `${''.padEnd(wide)}${cell('recall', 9)}${cell('precision', 11)}  ${classes.map((name) => cell(name.slice(0, 6))).join('')}`
  const rows = classes.map((name, i) => {
    const row = confusion[i]
    const taken = confusion.reduce((sum, other) => sum + other[i], 0)
    const labelled = row.reduce((sum, n) => sum + n, 0)
    return `${name.padEnd(wide)}${cell(share(row[i], labelled), 9)}${cell(share(row[i], taken), 11)}  ${row.map((n) => cell(n)).join('')}`
  })
  return [head, ...rows].join('\n')
}
