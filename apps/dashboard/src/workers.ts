import type { LiveWorker } from '@convoy/protocol/live'
import { el, setText } from './dom.ts'
import { bytes, percent, speed, whole } from './format.ts'

const columns = [
  ['Worker', ''],
  ['State', ''],
  ['Share', 'of the samples in the last 10 s'],
  ['Images/s', ''],
  ['Blame', 'time in the last 10 s in which the step waited for nobody else'],
  ['Stalls', ''],
  ['Refused', 'answers that were not usable'],
  ['Sent', 'to the worker'],
  ['Received', 'from the worker'],
] as const

interface Line {
  readonly row: HTMLElement
  readonly cells: readonly HTMLElement[]
  readonly bar: HTMLElement
}

/** The workers, and what each of them does. Roles are written out, since small screens lay the table out as cards. */
export class WorkersTable {
  readonly element: HTMLElement
  readonly #body = el('tbody', { role: 'rowgroup' })
  readonly #lines = new Map<string, Line>()
  readonly #empty = el('p', { class: 'muted' }, 'No worker has come yet.')

  constructor() {
    const head = columns.map(([name, title]) =>
      el('th', { scope: 'col', role: 'columnheader', title: title || undefined }, name),
    )
    this.element = el(
      'section',
      { class: 'card', 'aria-labelledby': 'workers-title' },
      el('h2', { id: 'workers-title' }, 'Workers'),
      this.#empty,
      el(
        'table',
        { class: 'workers', role: 'table', 'aria-labelledby': 'workers-title' },
        el('thead', { role: 'rowgroup' }, el('tr', { role: 'row' }, ...head)),
        this.#body,
      ),
    )
  }

  show(workers: readonly LiveWorker[]): void {
    this.#empty.hidden = workers.length > 0
    const gone = (worker: LiveWorker) => Number(worker.state === 'left' || worker.state === 'lost')
    const sorted = [...workers].sort(
      (a, b) => gone(a) - gone(b) || a.name.localeCompare(b.name, 'en', { numeric: true }),
    )
    for (const [name, line] of this.#lines) {
      if (workers.some((worker) => worker.name === name)) continue
      line.row.remove()
      this.#lines.delete(name)
    }
    sorted.forEach((worker, i) => {
      const line = this.#lines.get(worker.name) ?? this.#line(worker)
      if (this.#body.children[i] !== line.row)
        this.#body.insertBefore(line.row, this.#body.children[i] ?? null)
      line.row.dataset['state'] = worker.state
      const here = gone(worker) === 0
      line.bar.style.width = `${100 * worker.share}%`
      const texts = [
        worker.state,
        here ? percent(worker.share, 0) : '–',
        here ? speed(worker.imagesPerSecond) : '–',
        here ? percent(worker.blame, 0) : '–',
        whole(worker.stalls),
        whole(worker.refused),
        bytes(worker.bytesSent),
        bytes(worker.bytesReceived),
      ]
      texts.forEach((text, at) => setText(line.cells[at], text))
      line.row.title = `${whole(worker.samples)} samples so far`
    })
  }

  #line(worker: LiveWorker): Line {
    const cells = columns.slice(1).map(() => el('span', { class: 'value' }))
    cells[0].classList.add('state')
    const bar = el('span', { class: 'fill' })
    const row = el(
      'tr',
      { role: 'row', 'data-worker': worker.name },
      el(
        'th',
        { scope: 'row', role: 'rowheader' },
        el('span', {}, worker.name),
        el('small', {}, worker.engine),
      ),
      ...cells.map((cell, i) =>
        el(
          'td',
          { role: 'cell', 'data-label': columns[i + 1][0] },
          cell,
          i === 1 && el('span', { class: 'bar', 'aria-hidden': 'true' }, bar),
        ),
      ),
    )
    const line = { row, cells, bar }
    this.#lines.set(worker.name, line)
    return line
  }
}
