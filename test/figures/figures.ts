import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { format } from 'prettier'
import { z } from 'zod'
import { root } from '../convoy.ts'

/** The questions that figures answer, each in docs/figures/NAME.json, in the order in which a reader meets them. */
export const order = [
  'learn',
  'engine',
  'engine-avx2',
  'cluster',
  'rounds',
  'feed',
  'long-run',
  'same-bits',
  'faults',
  'flood',
  'elastic',
  'train',
  'first-run',
  'precision',
  'finetune',
  'tensorflow',
  'keras',
  'containers',
  'page',
]

export const folder = path.join(root, 'docs', 'figures')
const text = z.string().min(1)

/** What a person writes about a question. Texts are Markdown. */
export const question = z.object({
  title: text,
  /** What is measured, and under which conditions. */
  intro: text,
  /** What repeats the figures, or "by hand". */
  command: text,
})

/** What a measurement answers. */
const answer = z.object({
  columns: z.array(text).min(2),
  rows: z.array(z.array(z.string())).min(1),
  /** What these rows mean. */
  notes: text.optional(),
  /** Rows of README's table, with their command where it is another. */
  readme: z.array(z.strictObject({ what: text, figure: text, command: text.optional() })).optional(),
})
export type Answer = z.infer<typeof answer>

export const figures = z
  .strictObject({
    ...question.shape,
    machine: text,
    date: z.iso.date(),
    /** What was measured, or what first wrote the figures down. */
    commit: z.string().regex(/^[0-9a-f]{7,40}$/),
    ...answer.shape,
  })
  .refine(({ columns, rows }) => rows.every(({ length }) => length === columns.length), {
    message: 'a row has a cell for each column',
    path: ['rows'],
  })
export type Figures = z.infer<typeof figures>

/** A file of docs/figures, by a schema; throws an error that names file and field. */
export function readFigures<T>(name: string, schema: z.ZodType<T>): T {
  const file = path.join(folder, `${name}.json`)
  try {
    const { success, data, error } = schema.safeParse(JSON.parse(readFileSync(file, 'utf8')))
    if (success) return data
    throw new Error(z.prettifyError(error))
  } catch (error) {
    throw new Error(`${path.relative(root, file)}: ${(error as Error).message}`, { cause: error })
  }
}

/** All figures in their order. Each file must have its place in it, and each place its file. */
export function allFigures(): Figures[] {
  const found = readdirSync(folder).map((file) => path.basename(file, '.json'))
  const unplaced = found.filter((name) => !order.includes(name))
  if (unplaced.length > 0)
    throw new Error(`docs/figures: give ${unplaced.join()} a place in the order of test/figures/figures.ts`)
  return order.map((name) => readFigures(name, figures))
}

/** A Markdown table; prettier makes its columns straight. */
export function table(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(columns), line(columns.map(() => '---')), ...rows.map(line)].join('\n')
}

const code = (command: string) => (command === 'by hand' ? 'By hand' : `\`${command}\``)
const markdown = (source: string) => format(source, { parser: 'markdown' })

/** docs/figures.md. */
export function page(all: readonly Figures[]): Promise<string> {
  const sections = all.map(({ title, intro, columns, rows, notes, machine, date, commit, command }) => [
    `## ${title}`,
    `${code(command)} on ${machine}, ${date}, at ${commit}. ${intro}`,
    table(columns, rows),
    ...(notes === undefined ? [] : [notes]),
  ])
  const opening = [
    '# Figures',
    '<!-- Written by `npm run figures` from docs/figures/*.json: change those. -->',
    'The newest figure for each question; older ones are in the history of this page. All-CNN-C at full width (1,369,738 parameters) unless another is named; brackets hold the middle half. Zen 4 and 5 have AVX-512 and bf16, Zen 3 AVX2; all are virtual machines with 24 GB, Debian 12, Node.js 20.20 and oneDNN 2.6.3. Their hosts are shared and now and then take a third of the speed away for a minute, so ratios are taken within a round, and the median of the rounds counts.',
  ]
  return markdown([...opening, ...sections.flat()].join('\n\n'))
}

/** README.md with its table of figures, which stands between two comments. */
export async function readme(before: string, all: readonly Figures[]): Promise<string> {
  const [from, to] = ['<!-- figures -->\n', '<!-- /figures -->']
  const [start, end] = [before.indexOf(from), before.indexOf(to)]
  if (start < 0 || end < start) throw new Error(`README.md has no ${from.trim()} … ${to} for its table`)
  const rows = all.flatMap(({ readme = [], machine, command: whole }) =>
    readme.map(({ what, figure, command = whole }) => [
      what,
      figure,
      machine,
      command === 'by hand' ? '[docs/figures.md](docs/figures.md)' : code(command),
    ]),
  )
  const lines = await markdown(table(['what', 'figure', 'on', 'repeat'], rows))
  return `${before.slice(0, start + from.length)}\n${lines}\n${before.slice(end)}`
}
