import type { LiveNote } from '@convoy/protocol/live'
import { el } from './dom.ts'
import { clock, whole } from './format.ts'

const kinds = [
  ['all', 'All'],
  ['fault', 'Faults'],
  ['worker', 'Workers'],
  ['checkpoint', 'Checkpoints'],
  ['test', 'Tests'],
  ['verdict', 'Verdicts'],
  ['run', 'Run'],
] as const

/** Lines that are shown at most; the newest. */
const SHOWN = 300

/** What happened, newest first, all of it or one kind. */
export class EventList {
  readonly element: HTMLElement
  readonly #list = el('ol', { class: 'events' })
  readonly #filter: HTMLSelectElement
  #notes: LiveNote[] = []

  constructor() {
    this.#filter = el(
      'select',
      { 'aria-label': 'Kind of events' },
      ...kinds.map(([value, name]) => el('option', { value }, name)),
    )
    this.#filter.addEventListener('change', () => this.#draw())
    this.element = el(
      'section',
      { class: 'card', 'aria-labelledby': 'events-title' },
      el('div', { class: 'row' }, el('h2', { id: 'events-title' }, 'Events'), this.#filter),
      el(
        'div',
        { class: 'scroll', tabindex: 0, role: 'region', 'aria-labelledby': 'events-title' },
        this.#list,
      ),
    )
  }

  /** Shows these and no others, oldest first. */
  show(notes: readonly LiveNote[]): void {
    this.#notes = notes.slice(-SHOWN)
    this.#draw()
  }

  add(notes: readonly LiveNote[]): void {
    if (notes.length === 0) return
    this.#notes.push(...notes)
    this.#notes.splice(0, this.#notes.length - SHOWN)
    this.#list.prepend(
      ...notes
        .filter((note) => this.#wanted(note))
        .map(line)
        .reverse(),
    )
    while (this.#list.children.length > SHOWN) this.#list.lastElementChild!.remove()
    this.#list.querySelector('.none')?.remove()
  }

  #wanted(note: LiveNote): boolean {
    return this.#filter.value === 'all' || note.kind === this.#filter.value
  }

  #draw(): void {
    const lines = this.#notes.filter((note) => this.#wanted(note)).map(line)
    this.#list.replaceChildren(...lines.reverse())
    if (lines.length === 0) this.#list.append(el('li', { class: 'none muted' }, 'Nothing of this kind yet.'))
  }
}

function line(note: LiveNote): HTMLElement {
  return el(
    'li',
    { class: note.kind },
    el('time', { datetime: note.time > 0 ? new Date(note.time).toISOString() : undefined }, clock(note.time)),
    el('span', { class: 'kind' }, note.kind),
    el('span', { class: 'text' }, note.text),
    el('span', { class: 'step' }, `step ${whole(note.step)}`),
  )
}
