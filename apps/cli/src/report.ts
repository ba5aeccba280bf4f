import { History, readMetrics, readRunConfig, type RunEvent } from '@convoy/coordinator'
import { ConvoyError } from '@convoy/errors'
import { stat, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { chart, escape } from './chart.ts'
import { roundsText, sizesText, stepOf, untilText } from './event-text.ts'
import { duration, grouped, percent, work } from './format.ts'
import { EXIT } from './schemas.ts'
import { newestRun } from './source.ts'

/** All-CNN-C on CIFAR-10 without augmentation (Springenberg et al. 2015, table 3). */
const PAPER = { level: 0.9092, name: 'paper: 90.92 %' }
/** Columns in which the steps of a run are drawn. */
const COLUMNS = 400

type Of<E extends RunEvent['event']> = Extract<RunEvent, { event: E }>

/** What is known of a run that is or was: its settings, its history, and what its newest session said of itself. */
interface Told {
  readonly config: Record<string, unknown>
  readonly history: History
  readonly start: Of<'start'>
  readonly done: Of<'done'> | undefined
  /** Samples trained on, and seconds that took. */
  readonly samples: number
  readonly seconds: number
  /** What the steps that stand cost, in epochs of full-size images; undefined in older runs. */
  readonly worked: number | undefined
}

/** Reads what a run left behind. Throws E_RUN where it left nothing. */
async function read(directory: string): Promise<Told> {
  const config = await readRunConfig(directory)
  const history = new History()
  let start: Of<'start'> | undefined
  let done: Of<'done'> | undefined
  let [samples, seconds] = [0, 0]
  let worked: number | undefined
  const nothing = (cause?: unknown) =>
    new ConvoyError('E_RUN', `${directory} has no metrics yet`, 'Train for a while first.', { cause })
  await readMetrics(path.join(directory, 'metrics.jsonl'), (event, time) => {
    history.hear(event, time)
    if (event.event === 'start') [start, done] = [event, undefined]
    else if (event.event === 'done') done = event
    else if (event.event === 'step') {
      samples += event.samples
      seconds += event.seconds
      worked = event.work
    }
  }).catch((error: unknown) => {
    throw nothing(error)
  })
  if (!start) throw nothing()
  return { config, history, start, done, samples, seconds, worked }
}

type Definition = readonly [name: string, value: string | undefined]

const definitions = (entries: readonly Definition[]) =>
  `<dl>${entries
    .map(([name, value]) =>
      value === undefined ? '' : `<div><dt>${escape(name)}</dt><dd>${escape(value)}</dd></div>`,
    )
    .join('')}</dl>`

/** A run's curves, those of which there is something to show. */
function charts(history: History, { data, sizes }: Of<'start'>): string[] {
  const { tests } = history
  const rows = history.curves.rows(0, Infinity, COLUMNS)
  const { step: steps, cost1000, cost5000, trainAccuracy, learningRate, imagesPerSecond } = rows
  const test = {
    steps: tests.map(({ step }) => step),
    values: tests.map(({ accuracy }) => accuracy),
  }
  const sizeOf = (step: number) => sizes?.findLast(({ from }) => from < step)?.size ?? null
  const [blue, orange] = ['var(--blue)', 'var(--orange)']
  return [
    chart(
      [
        { name: 'last 1,000 samples', colour: orange, steps, values: cost1000 },
        { name: 'last 5,000 samples', colour: blue, steps, values: cost5000 },
      ],
      { title: 'Cost before each update, nats', show: (value) => String(value) },
    ),
    chart(
      [
        { name: 'training, last 5,000 samples', colour: orange, steps, values: trainAccuracy },
        { name: 'test', colour: blue, ...test, dots: true },
      ],
      {
        title: 'Accuracy',
        show: (value) => `${Math.round(100 * value)} %`,
        fromZero: true,
        ...(/cifar-?10\b/i.test(data) ? { mark: PAPER } : {}),
      },
    ),
    chart([{ name: 'learning rate', colour: blue, steps, values: learningRate }], {
      title: 'Learning rate',
      show: (value) => String(value),
    }),
    chart(
      [
        {
          name: 'height and width',
          colour: blue,
          steps,
          values: steps.map(sizeOf),
        },
      ],
      { title: 'Images, pixels', show: (value) => String(value), fromZero: true },
    ),
    chart([{ name: 'images/s', colour: blue, steps, values: imagesPerSecond }], {
      title: 'Images a second',
      show: (value) => grouped(value),
      fromZero: true,
    }),
  ].filter((one) => one !== undefined)
}

function figures({ history, start, done, samples, seconds, worked }: Told): Definition[] {
  const { tests, about } = history
  const status = history.status({ sent: 0, received: 0 })
  const best = tests.reduce<number | null>(
    (most, { accuracy }) => (accuracy !== null && accuracy > (most ?? 0) ? accuracy : most),
    null,
  )
  return [
    ['test accuracy', percentOf(tests.at(-1)?.accuracy)],
    ['best test accuracy', percentOf(best)],
    ['until', done?.until && untilText(done.until)],
    ['cost, last 5,000 samples', status.cost5000?.toFixed(4)],
    [`${stepOf(start)}s`, `${grouped(status.step)} of ${grouped(about!.totalSteps)}`],
    ['each', start.rounds && `${roundsText(start.rounds)}, batch ${grouped(start.batchSize)}`],
    ['epochs', `${grouped(status.epoch)} of ${grouped(start.epochs)}`],
    ['sizes', start.sizes && sizesText(start.sizes)],
    ['work', worked === undefined ? undefined : `${work(worked)} full-size epochs`],
    ['samples computed on', grouped(samples)],
    ['time of training', duration(seconds)],
    ['images/s', seconds > 0 ? (samples / seconds).toFixed(1) : undefined],
    ['parameters', grouped(start.parameters)],
  ]
}

/** What tells this run from another one. */
function identity({ start, done }: Told): Definition[] {
  const { machine } = start
  const numerics = done?.numerics
  return [
    ['parametersSha256', done?.parametersSha256],
    ['data', `${start.data}, ${grouped(start.trainImages)} + ${grouped(start.testImages)} images`],
    ['data SHA-256', start.fingerprint],
    ['seed', String(start.seed)],
    [
      'numerics class',
      numerics
        ? `${numerics.engine} ${numerics.version}, ${numerics.precision}, ${numerics.instructionSet}, ${numerics.threads} thread(s)`
        : undefined,
    ],
    ['Convoy', machine?.convoy],
    ['Node.js', machine?.node],
    [
      'coordinator',
      machine && `${machine.cpu}, ${machine.cores} cores, ${(machine.memory / 2 ** 30).toFixed(1)} GiB`,
    ],
    ['system', machine?.system],
  ]
}

/**
 * A report as one HTML file that loads nothing and runs nothing: curves, verdict, figures, settings, hashes, machine and
 * events.
 */
function page(told: Told): string {
  const { config, history, start, done } = told
  const status = history.status({ sent: 0, received: 0 })
  const state = done ? (done.finished ? 'finished' : `stopped at step ${grouped(done.step)}`) : 'not ended'
  const notes = history.lastNotes().filter(({ kind }) => kind !== 'checkpoint')
  const title = `${start.run} · Convoy`
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escape(title)}</title>
<style>${STYLE}</style>
<main>
<header><h1>${escape(start.run)}</h1>
<p>${escape(`${start.model} on ${start.data}: ${state}${done?.mixed ? ', mixed numerics' : ''}.`)}</p></header>
${
  status.verdict
    ? `<p class="verdict"><b>${escape(status.verdict.verdict.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`))}</b> ${escape(status.verdict.reason)} <small>since step ${grouped(status.verdict.step)}</small></p>`
    : ''
}
<section class="charts">${charts(history, start).join('\n')}</section>
<h2>Figures</h2>
${definitions(figures(told))}
<h2>Identity</h2>
${definitions(identity(told))}
<h2>Settings</h2>
${definitions(Object.entries(config).map(([name, value]) => [name, textOf(value)]))}
<h2>Events</h2>
<div class="events"><table><thead><tr><th>time</th><th>step</th><th>what</th></tr></thead><tbody>
${notes
  .map(
    ({ time, step, kind, text }) =>
      `<tr class="${kind}"><td>${escape(new Date(time).toISOString().slice(0, 19).replace('T', ' '))}</td><td>${grouped(step)}</td><td>${escape(text)}</td></tr>`,
  )
  .join('\n')}
</tbody></table></div>
</main>
</html>
`
}

const percentOf = (share: number | null | undefined) =>
  typeof share === 'number' ? percent(share) : undefined
const textOf = (value: unknown) => (typeof value === 'string' ? value : JSON.stringify(value))

const STYLE = `
:root{color-scheme:light dark;--page:#f4f6f9;--card:#fff;--text:#18212c;--muted:#566170;--line:#d9dfe7;--blue:#1f62c9;--orange:#c05a0b;--red:#c02f38}
@media(prefers-color-scheme:dark){:root{--page:#0e1319;--card:#161d26;--text:#e7ecf2;--muted:#9dabbb;--line:#2b3642;--blue:#6ea8ff;--orange:#ffa657;--red:#ff8087}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:auto;padding:16px}
h1{margin:8px 0 0;font-size:24px;overflow-wrap:anywhere}
h2{margin:28px 0 8px;font-size:17px}
header p{margin:2px 0 12px;color:var(--muted)}
small{color:var(--muted)}
p.verdict,figure,dl,.events{background:var(--card);border:1px solid var(--line);border-radius:8px}
p.verdict{margin:0 0 12px;padding:10px 14px}
.verdict b{display:inline-block}
.verdict b::first-letter{text-transform:uppercase}
.verdict b::after{content:'.'}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:12px}
figure{margin:0;padding:10px 12px;break-inside:avoid}
figcaption{font-weight:600}
figcaption small{float:right;font-weight:400}
figcaption span{margin-left:12px;white-space:nowrap}
figcaption i{display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle}
svg{display:block;width:100%;height:auto;clear:both}
svg text{fill:var(--muted);font:12px system-ui,sans-serif}
.grid{stroke:var(--line)}
.mark{stroke:var(--muted);stroke-dasharray:4 3}
.line{fill:none;stroke-width:1.5;stroke-linejoin:round}
dl{margin:0;padding:6px 14px;display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));column-gap:24px}
dl div{display:flex;gap:12px;padding:3px 0;break-inside:avoid}
dt{flex:0 0 auto;color:var(--muted)}
dd{margin:0 0 0 auto;text-align:right;overflow-wrap:anywhere}
.events{overflow-x:auto;padding:6px 14px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th{text-align:left;color:var(--muted);font-weight:400}
th,td{padding:2px 12px 2px 0;vertical-align:top;white-space:nowrap}
td:last-child{white-space:normal;width:100%;min-width:220px}
tr.fault td:last-child{color:var(--red)}
@media(max-width:480px){th:first-child,td:first-child{display:none}}
@media print{:root{--page:#fff}main{max-width:none;padding:0}}
`

interface Options {
  json?: boolean
  runs: string
  out?: string
}

/** `convoy report`: writes a run's report beside it, or where `--out` says. */
export async function report(name: string | undefined, options: Options): Promise<number> {
  const { runs, json } = options
  let directory = name === undefined ? await newestRun(runs) : path.join(runs, name)
  // A path of a run will do, too.
  if (name !== undefined && (await stat(path.join(name, 'config.json')).catch(() => undefined)))
    directory = name
  const html = page(await read(directory))
  const file = options.out ?? path.join(directory, 'report.html')
  await writeFile(file, html).catch((error: Error) => {
    throw new ConvoyError(
      'E_USAGE',
      `${file} cannot be written: ${error.message}`,
      'Choose another place with --out FILE.',
    )
  })
  process.stdout.write(json ? `${JSON.stringify({ event: 'report', file })}\n` : `${file}\n`)
  return EXIT.done
}
