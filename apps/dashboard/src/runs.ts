import type { LiveHistory, LiveSummary } from '@convoy/protocol/live'
import { Chart, type ChartOptions, type Line, type Table } from './chart.ts'
import type { Connection, Pushed } from './connection.ts'
import { announce, el, setText } from './dom.ts'
import * as format from './format.ts'
import { append, curves, scaleOf, tests, type Unit } from './tables.ts'
import { PAPER } from './training.ts'
import type { View } from './view.ts'

const COLOURS = ['blue', 'orange', 'green', 'purple', 'red', 'teal']
/** Rows of a history that are drawn before it is asked for again. */
const ROWS = 6_000

/** All runs, and the curves of some of them side by side. */
export class RunsView implements View {
  readonly element: HTMLElement
  readonly #connection: Connection
  /** Names of the runs that are compared, in the order in which they were chosen. */
  #chosen: string[]
  readonly #histories = new Map<string, LiveHistory>()
  #unit: Unit = 'epoch'
  #disposed = false
  readonly #body = el('tbody')
  readonly #note = el('p', { class: 'muted' })
  readonly #charts: readonly Chart[]
  readonly #compared: HTMLElement

  /** @param names The runs to compare, separated by commas; '' begins with the one that is trained. */
  constructor(connection: Connection, names: string) {
    this.#connection = connection
    this.#chosen = names === '' ? [] : names.split(',').map(decodeURIComponent).slice(0, COLOURS.length)
    const chart = (options: Omit<ChartOptions, 'x' | 'zoom'>) =>
      new Chart({ ...options, x: 'epoch', zoom: () => {} })
    this.#charts = [
      chart({ title: 'Cost', note: 'mean of 5,000 samples, nats', format: format.cost }),
      chart({
        title: 'Test accuracy',
        format: (value) => format.percent(value, 1),
        tick: (value) => format.percent(value, 0),
        range: [0, 1],
        marks: [{ at: PAPER, label: 'paper 90.92 %' }],
      }),
      chart({
        title: 'Train accuracy',
        note: 'mean of 5,000 samples',
        format: (value) => format.percent(value, 1),
        tick: (value) => format.percent(value, 0),
        range: [0, 1],
      }),
      chart({ title: 'Learning rate', format: format.rate, fromZero: true }),
    ]
    const unit = el(
      'select',
      {},
      el('option', { value: 'epoch' }, 'Epochs'),
      el('option', { value: 'step' }, 'Steps'),
    )
    unit.addEventListener('change', () => {
      this.#unit = unit.value as Unit
      this.#charts.forEach((one) => one.rename(this.#unit))
      this.#draw()
    })
    const heads = ['Compare', 'Run', 'Model', 'Step', 'Epochs', 'Test accuracy', 'Last written', 'State']
    this.#compared = el(
      'div',
      { class: 'stack' },
      el(
        'div',
        { class: 'row tools' },
        el('h2', {}, 'Compared'),
        el('span', { class: 'grow' }),
        el('label', {}, 'Show over ', unit),
      ),
      el('div', { class: 'charts' }, ...this.#charts.map((one) => one.element)),
    )
    this.element = el(
      'div',
      { class: 'stack' },
      el('h1', { class: 'plain' }, 'Runs'),
      el(
        'section',
        { class: 'card', 'aria-label': 'All runs' },
        this.#note,
        el(
          'div',
          { class: 'scroll runs', tabindex: 0, role: 'region', 'aria-label': 'List of runs' },
          el(
            'table',
            {},
            el('thead', {}, el('tr', {}, ...heads.map((head) => el('th', { scope: 'col' }, head)))),
            this.#body,
          ),
        ),
      ),
      this.#compared,
    )
    document.title = 'Runs – Convoy'
  }

  refresh(): void {
    void this.#load()
  }

  push(message: Pushed): void {
    const history = this.#histories.get(this.#connection.run)
    if (!history) return
    if (message.tests.length > 0) {
      const first = message.tests[0].step
      history.tests = [...history.tests.filter(({ step }) => step < first), ...message.tests]
    }
    if (!append(history.rows, message.rows) || history.rows.step.length > ROWS) {
      this.#histories.delete(this.#connection.run)
      void this.#loadHistories()
    } else this.#draw()
  }

  redraw(): void {
    this.#charts.forEach((chart) => chart.redraw())
  }

  dispose(): void {
    this.#disposed = true
    this.#charts.forEach((chart) => chart.dispose())
  }

  async #load(): Promise<void> {
    try {
      const runs = await this.#connection.runs()
      if (this.#disposed) return
      if (this.#chosen.length === 0) {
        const current = runs.find((run) => run.current) ?? runs[0]
        this.#chosen = current ? [current.name] : []
      }
      setText(
        this.#note,
        runs.length === 0
          ? 'There are no runs yet.'
          : `${runs.length} ${runs.length === 1 ? 'run' : 'runs'}; choose up to ${COLOURS.length} to compare.`,
      )
      this.#body.replaceChildren(...runs.map((run) => this.#row(run)))
      this.#histories.clear()
      await this.#loadHistories()
    } catch {
      // The connection went; the next one asks again.
    }
  }

  async #loadHistories(): Promise<void> {
    const missing = this.#chosen.filter((name) => !this.#histories.has(name))
    await Promise.all(
      missing.map(async (name) => {
        try {
          this.#histories.set(name, await this.#connection.history(name, 0, null, 600))
        } catch (error) {
          this.#chosen = this.#chosen.filter((one) => one !== name)
          announce((error as Error).message)
        }
      }),
    )
    if (!this.#disposed) this.#draw()
  }

  #row(run: LiveSummary): HTMLElement {
    const box = el('input', { type: 'checkbox', 'aria-label': `Compare ${run.name}` })
    box.checked = this.#chosen.includes(run.name)
    box.addEventListener('change', () => {
      if (!box.checked) this.#chosen = this.#chosen.filter((name) => name !== run.name)
      else if (this.#chosen.length < COLOURS.length) this.#chosen.push(run.name)
      else {
        box.checked = false
        announce(`At most ${COLOURS.length} runs are compared.`)
      }
      history.replaceState(null, '', `#/runs/${this.#chosen.map(encodeURIComponent).join(',')}`)
      void this.#loadHistories()
    })
    const href = run.current ? '#/' : `#/run/${encodeURIComponent(run.name)}`
    return el(
      'tr',
      {},
      el('td', {}, box),
      el('th', { scope: 'row' }, el('a', { href }, run.name)),
      el('td', {}, run.model),
      el('td', {}, format.whole(run.step)),
      el('td', {}, format.whole(run.epoch)),
      el('td', {}, format.percent(run.testAccuracy)),
      el('td', {}, format.clock(run.time)),
      el('td', {}, run.finished ? 'finished' : run.current ? 'here' : 'not finished'),
    )
  }

  #draw(): void {
    const shown = this.#chosen.flatMap((name) => this.#histories.get(name) ?? [])
    this.#compared.hidden = shown.length === 0
    if (shown.length === 0) return
    const lines: Line[] = shown.map((history, i) => ({ label: history.run, colour: COLOURS[i] }))
    const dotted = lines.map((line) => ({ ...line, dots: true }))
    const each = (table: (history: LiveHistory, scale: number) => Table) =>
      shown.map((history) => table(history, scaleOf(history, this.#unit)))
    const end = Math.max(
      ...shown.map(({ rows }, i) => (rows.step.at(-1) ?? 1) * scaleOf(shown[i], this.#unit)),
    )
    const limits: [number, number] = [0, end]
    const [cost, test, train, rate] = this.#charts
    cost.show(
      lines,
      each((history, scale) => curves(history, scale, 'cost5000')),
      limits,
    )
    test.show(dotted, each(tests), limits)
    train.show(
      lines,
      each((history, scale) => curves(history, scale, 'trainAccuracy')),
      limits,
    )
    rate.show(
      lines,
      each((history, scale) => curves(history, scale, 'learningRate')),
      limits,
    )
  }
}
