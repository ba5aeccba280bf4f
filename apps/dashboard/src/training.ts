import type { LiveHistory, LiveSpeeds, LiveStatus, LiveVerdict } from '@convoy/protocol/live'
import { sizeOfStep } from '@convoy/protocol/live'
import { Chart, type ChartOptions, type Line, type Table } from './chart.ts'
import type { Connection, Pushed } from './connection.ts'
import { announce, el, setText } from './dom.ts'
import { EventList } from './events.ts'
import * as format from './format.ts'
import { append, curves, progressOf, scaleOf, sizeChanges, sizes, tests, type Unit } from './tables.ts'
import type { View } from './view.ts'
import { WorkersTable } from './workers.ts'

/** The paper's test accuracy of All-CNN-C without augmentation (Springenberg et al. 2015, table 3: 9.08 % error). */
export const PAPER = 0.9092

/** Rows after which the history is asked for again, in the pixels that there are. */
const ROWS = 6_000
/** Milliseconds between two drawings of curves that grow by a pixel or more: the page may share its cores with the training. */
const REDRAW = 7_000
const WORKER_COLOURS = ['blue', 'orange', 'green', 'purple', 'red', 'teal', 'pink', 'brown']

const phases: Record<LiveStatus['phase'], string> = {
  training: 'training',
  testing: 'testing',
  waiting: 'waiting for workers',
  finished: 'finished',
  stopped: 'stopped',
  diverged: 'diverged',
  interrupted: 'not running here',
}

/** How much of the run the charts show. */
type Range = { kind: 'all' } | { kind: 'last'; steps: number } | { kind: 'drawn'; from: number; to: number }

/** A run: live where the coordinator trains it, or as its files tell it. */
export class TrainingView implements View {
  readonly element: HTMLElement
  readonly #connection: Connection
  readonly #wanted: string
  #history: LiveHistory | undefined
  #status: LiveStatus | undefined
  #range: Range = { kind: 'all' }
  #unit: Unit = 'step'
  #loading = false
  #stale = false
  #disposed = false
  /** Whether a drawing is under way. */
  #asked = false
  /** When the charts were drawn last, and the step, tests and phase that they reached. */
  #drawn = { time: 0, step: 0, tests: 0, phase: '' }

  readonly #title = el('h1', {}, 'Training')
  readonly #about = el('p', { class: 'muted' })
  readonly #phase = el('span', { class: 'phase' })
  readonly #progress = el('progress', { max: 1, 'aria-label': 'Progress of the run' })
  readonly #progressText = el('span', {})
  readonly #weights = el('a', { class: 'button', href: 'weights', download: true, hidden: true })
  readonly #verdict = el('section', { class: 'card verdict', 'aria-label': 'Verdict' })
  readonly #tiles = new Map<string, HTMLElement>()
  readonly #rangeSelect: HTMLSelectElement
  readonly #workers = new WorkersTable()
  readonly #events = new EventList()
  readonly #charts: Record<'cost' | 'size' | 'accuracy' | 'rate' | 'speed', Chart>
  readonly #message = el('p', { class: 'card', hidden: true })
  readonly #content: HTMLElement

  /** @param run The run to show, or '' for the one that is trained. */
  constructor(connection: Connection, run: string) {
    this.#connection = connection
    this.#wanted = run
    const chart = (options: Omit<ChartOptions, 'x' | 'zoom'>) =>
      new Chart({ ...options, x: 'step', zoom: (range) => this.#zoom(range) })
    this.#charts = {
      cost: chart({ title: 'Cost', note: 'nats a sample, before its update', format: format.cost }),
      size: chart({ title: 'Image size', note: 'height and width', format: format.pixels, fromZero: true }),
      accuracy: chart({
        title: 'Accuracy',
        note: 'train: mean of 5,000 samples',
        format: (value) => format.percent(value, 1),
        tick: (value) => format.percent(value, 0),
        range: [0, 1],
        marks: [{ at: PAPER, label: 'paper 90.92 %' }],
      }),
      speed: chart({ title: 'Images/s', format: format.speed, fromZero: true }),
      rate: chart({ title: 'Learning rate', format: format.rate, fromZero: true }),
    }
    this.#rangeSelect = el(
      'select',
      {},
      el('option', { value: 'all' }, 'Whole run'),
      ...[10_000, 1_000, 100].map((n) => el('option', { value: n }, `Last ${format.whole(n)} steps`)),
      el('option', { value: 'drawn', disabled: true }, 'Drawn stretch'),
    )
    this.#rangeSelect.addEventListener('change', () => {
      const { value } = this.#rangeSelect
      this.#setRange(value === 'all' ? { kind: 'all' } : { kind: 'last', steps: Number(value) })
    })
    const unit = el(
      'select',
      {},
      el('option', { value: 'step' }, 'Steps'),
      el('option', { value: 'epoch' }, 'Epochs'),
    )
    unit.addEventListener('change', () => {
      this.#unit = unit.value as Unit
      Object.values(this.#charts).forEach((chart) => chart.rename(this.#unit))
      this.#draw()
    })
    this.#weights.addEventListener('click', (event) => void this.#download(event))
    this.#content = el(
      'div',
      { class: 'stack' },
      el(
        'section',
        { class: 'card head', 'aria-label': 'Run' },
        el('div', { class: 'row' }, el('div', {}, this.#title, this.#about), this.#phase),
        el('div', { class: 'progress' }, this.#progress, this.#progressText),
        el('div', { class: 'row' }, this.#tileList(), this.#weights),
      ),
      this.#verdict,
      el(
        'div',
        { class: 'row tools' },
        el('h2', {}, 'Curves'),
        el('span', { class: 'grow' }),
        el('label', {}, 'Show ', this.#rangeSelect),
        el('label', {}, 'over ', unit),
      ),
      el('div', { class: 'charts' }, ...Object.values(this.#charts).map((one) => one.element)),
      this.#workers.element,
      this.#events.element,
    )
    this.#content.hidden = true
    this.element = el('div', {}, this.#message, this.#content)
    this.#say('Waiting for the coordinator …')
  }

  refresh(): void {
    if (this.#loading) {
      this.#stale = true
      return
    }
    void this.#load()
  }

  push(message: Pushed): void {
    const history = this.#history
    if (!history?.current) return
    this.#status = message.status
    if (message.tests.length > 0) {
      const first = message.tests[0].step
      history.tests = [...history.tests.filter(({ step }) => step < first), ...message.tests]
    }
    this.#events.add(message.notes)
    const told = message.notes.filter(
      ({ kind }) => kind === 'fault' || kind === 'verdict' || kind === 'worker',
    )
    if (told.length > 0) announce(told.map(({ text }) => text).join(' '))
    this.#showStatus()
    this.#workers.show(message.workers)
    this.#addSpeeds(history.speeds, message)
    // A stretch that was drawn stands still; everything else goes on at the right.
    if (this.#range.kind !== 'drawn') {
      if (!append(history.rows, message.rows) || history.rows.step.length > ROWS) this.refresh()
      if (this.#grew(history, message.status)) this.#draw()
    }
  }

  title({ status }: Pushed): void {
    if (this.#history?.current) this.#showTitle(this.#history, status)
  }

  redraw(): void {
    Object.values(this.#charts).forEach((chart) => chart.redraw())
  }

  dispose(): void {
    this.#disposed = true
    Object.values(this.#charts).forEach((chart) => chart.dispose())
  }

  #tileList(): HTMLElement {
    const tile = (key: string, name: string, note?: string) => {
      const value = el('dd', { 'data-figure': key })
      this.#tiles.set(key, value)
      return el('div', {}, el('dt', {}, name, note !== undefined && el('small', {}, ` ${note}`)), value)
    }
    return el(
      'dl',
      { class: 'tiles' },
      tile('cost1000', 'Cost', '1,000 samples'),
      tile('cost5000', 'Cost', '5,000 samples'),
      tile('trainAccuracy', 'Train accuracy'),
      tile('testAccuracy', 'Test accuracy', 'last, best'),
      tile('imagesPerSecond', 'Images/s'),
      tile('learningRate', 'Learning rate'),
      tile('workers', 'Workers'),
      tile('bytes', 'Bytes', 'sent, received'),
    )
  }

  #say(text: string): void {
    setText(this.#message, text)
    this.#message.hidden = text === ''
  }

  async #load(): Promise<void> {
    const run = this.#wanted || this.#connection.run
    this.#loading = true
    this.#stale = false
    try {
      const [from, to] = this.#ends()
      const points = Math.max(200, Math.min(2_000, this.#charts.cost.width || innerWidth))
      // What can be read at once comes first.
      const history = await this.#connection.history(run, from, to, points, this.#history !== undefined)
      if (this.#disposed) return
      this.#history = history
      this.#status = history.status
      this.#say('')
      this.#content.hidden = false
      this.#events.show(history.notes)
      this.#workers.element.hidden = !history.current
      this.#workers.show(history.workers)
      this.#showStatus()
      this.#draw()
      if (!history.whole) this.#stale = true
    } catch (error) {
      if (this.#connection.state === 'open') this.#say((error as Error).message)
    } finally {
      this.#loading = false
      if (this.#stale && !this.#disposed) void this.#load()
    }
  }

  /** The first and last step to show; null is the run's end. */
  #ends(): [number, number | null] {
    const range = this.#range
    if (range.kind === 'drawn') return [range.from, range.to]
    if (range.kind === 'last') return [Math.max(0, (this.#status?.step ?? 0) - range.steps + 1), null]
    return [0, null]
  }

  #zoom(range: [number, number] | null): void {
    if (!range) return this.#setRange({ kind: 'all' })
    const scale = this.#history ? scaleOf(this.#history, this.#unit) : 1
    const [from, to] = range.map((x) => Math.max(0, Math.round(x / scale)))
    if (to > from) this.#setRange({ kind: 'drawn', from, to })
  }

  #setRange(range: Range): void {
    this.#range = range
    this.#rangeSelect.value = range.kind === 'last' ? String(range.steps) : range.kind
    this.#draw()
    this.refresh()
  }

  #showStatus(): void {
    const history = this.#history!
    const status = this.#status!
    const { about } = history
    setText(this.#title, history.run)
    setText(
      this.#about,
      about
        ? `${about.model}, ${format.whole(about.parameters)} parameters; ${about.data}, ${format.whole(about.trainImages)} training and ${format.whole(about.testImages)} test images; ${about.rounds ? `rounds of ${about.rounds.replicas} × ${about.rounds.steps} steps, ` : ''}batch ${format.whole(about.batchSize)}, seed ${about.seed}`
        : '',
    )
    setText(this.#phase, phases[status.phase])
    this.#phase.dataset['phase'] = status.phase
    const progress = progressOf(history, status)
    if (progress !== undefined) this.#progress.value = progress
    const eta =
      status.phase === 'training' || status.phase === 'testing'
        ? `, ${format.duration(status.eta)} to go`
        : ''
    setText(
      this.#progressText,
      `${about?.rounds ? 'round' : 'step'} ${format.whole(status.step)}${about ? ` of ${format.whole(about.totalSteps)}` : ''}, epoch ${format.whole(Math.min(status.epoch + 1, about?.epochs ?? Infinity))}${about ? ` of ${format.whole(about.epochs)}` : ''}, ${format.duration(status.seconds)} of training${eta}`,
    )
    const last = history.tests.at(-1)?.accuracy
    const best = Math.max(...history.tests.map(({ accuracy }) => accuracy ?? 0))
    const figures: Record<string, string> = {
      cost1000: format.cost(status.cost1000),
      cost5000: format.cost(status.cost5000),
      trainAccuracy: format.percent(status.trainAccuracy),
      testAccuracy: last === undefined ? '–' : `${format.percent(last)}, ${format.percent(best)}`,
      imagesPerSecond: `${format.speed(status.imagesPerSecond)}${this.#smaller(status.step)}`,
      learningRate: format.rate(status.learningRate),
      workers: history.current ? format.whole(status.workers) : '–',
      bytes: history.current
        ? `${format.bytes(status.bytesSent)}, ${format.bytes(status.bytesReceived)}`
        : '–',
    }
    for (const [key, text] of Object.entries(figures)) setText(this.#tiles.get(key)!, text)
    this.#weights.hidden = status.checkpoint === null
    setText(this.#weights, `Download weights (step ${format.whole(status.checkpoint)})`)
    this.#weights.href = `weights?run=${encodeURIComponent(history.run)}`
    this.#showVerdict(status.verdict)
    this.#showTitle(history, status)
  }

  /** The size of a step's images, where they are smaller than in the end. */
  #smaller(step: number): string {
    const { about } = this.#history!
    const size = sizeOfStep(about, step)
    return size === null || size === about!.sizes!.at(-1)!.size ? '' : ` of ${format.pixels(size)}`
  }

  #showTitle(history: LiveHistory, status: LiveStatus): void {
    const progress = progressOf(history, status)
    const share = progress === undefined ? '' : `${Math.floor(100 * progress)} % · `
    const title = `${share}${history.run} – Convoy`
    if (title !== document.title) document.title = title
  }

  #showVerdict(verdict: LiveVerdict | null): void {
    const name = verdict ? verdict.verdict.replace(/([a-z])([A-Z])/g, '$1 $2').toLowerCase() : ''
    const tone = /not|dead|diverg/.test(name) ? 'bad' : /noisy/.test(name) ? 'unsure' : verdict ? 'good' : ''
    const key = verdict ? `${name}: ${verdict.reason}` : ''
    if (this.#verdict.dataset['key'] === key) return
    this.#verdict.dataset['key'] = key
    this.#verdict.dataset['tone'] = tone
    this.#verdict.hidden = !verdict
    this.#verdict.replaceChildren(
      el('strong', {}, name),
      el('span', {}, verdict?.reason ?? ''),
      el('small', { class: 'muted' }, verdict ? `since step ${format.whole(verdict.step)}` : ''),
    )
  }

  #addSpeeds(speeds: LiveSpeeds, { status: { step }, workers }: Pushed): void {
    if (workers.length === 0 || step <= (speeds.step.at(-1) ?? 0)) return
    for (const { name } of workers) {
      if (speeds.names.includes(name) || speeds.names.length >= 32) continue
      speeds.names.push(name)
      speeds.rates.push(speeds.step.map(() => null))
    }
    speeds.step.push(step)
    speeds.names.forEach((name, i) => {
      const worker = workers.find((one) => one.name === name)
      const here = worker && !['compiling', 'left', 'lost'].includes(worker.state)
      speeds.rates[i].push(here ? worker.imagesPerSecond : null)
    })
  }

  /** Whether there is something to see that is not drawn: the curves reach another pixel or test, or have come to a halt. */
  #grew({ rows, tests }: LiveHistory, { phase }: LiveStatus): boolean {
    const drawn = this.#drawn
    if (phase !== drawn.phase || tests.length !== drawn.tests) return true
    if (performance.now() - drawn.time < REDRAW) return false
    const last = rows.step.at(-1) ?? 0
    const first = this.#range.kind === 'last' ? last - this.#range.steps : (rows.step[0] ?? 0)
    return (last - drawn.step) * this.#charts.cost.width >= last - first
  }

  /** Draws once a frame at most. */
  #draw(): void {
    if (this.#asked) return
    this.#asked = true
    requestAnimationFrame(() => {
      this.#asked = false
      if (!this.#disposed && this.#history) this.#drawNow(this.#history)
    })
  }

  #drawNow(history: LiveHistory): void {
    const { rows, tests: tested } = history
    this.#drawn = {
      time: performance.now(),
      step: rows.step.at(-1) ?? 0,
      tests: tested.length,
      phase: this.#status!.phase,
    }
    const scale = scaleOf(history, this.#unit)
    const [from, to] = this.#ends()
    const last = Math.max(history.rows.step.at(-1) ?? 1, this.#status?.step ?? 1)
    const limits: [number, number] = [
      Math.max(from, this.#range.kind === 'all' ? (history.rows.step[0] ?? 0) - 1 : 0) * scale,
      Math.max((to ?? last) * scale, (from + 1) * scale),
    ]
    const { cost, size, accuracy, speed, rate } = this.#charts
    const changes = sizeChanges(history, scale)
    cost.show(
      [
        { label: '1,000 samples', colour: 'blue', thin: true },
        { label: '5,000 samples', colour: 'orange' },
      ],
      [curves(history, scale, 'cost1000', 'cost5000')],
      limits,
      changes,
    )
    size.element.hidden = !history.about?.sizes
    if (!size.element.hidden)
      size.show([{ label: 'pixels', colour: 'blue' }], [sizes(history, scale)], limits, changes)
    accuracy.show(
      [
        { label: 'train', colour: 'blue', thin: true },
        { label: 'test', colour: 'orange', dots: true },
      ],
      [curves(history, scale, 'trainAccuracy'), tests(history, scale)],
      limits,
      changes,
    )
    rate.show([{ label: 'learning rate', colour: 'blue' }], [curves(history, scale, 'learningRate')], limits)
    const { names, step, rates } = history.speeds
    const each: Line[] = names.map((name, i) => ({
      label: name,
      colour: WORKER_COLOURS[(i + 1) % WORKER_COLOURS.length],
      thin: true,
    }))
    const tables: Table[] = [curves(history, scale, 'imagesPerSecond')]
    if (names.length > 0) tables.push([step.map((one) => one * scale), ...rates])
    speed.show([{ label: 'in all', colour: 'blue' }, ...each], tables, limits)
  }

  /** With a token, a plain link will not do. */
  async #download(event: Event): Promise<void> {
    const { token } = this.#connection
    if (token === null) return
    event.preventDefault()
    const answer = await fetch(this.#weights.href, { headers: { authorization: `Bearer ${token}` } })
    if (!answer.ok) return announce(await answer.text())
    const name = /filename="([^"]+)"/.exec(answer.headers.get('content-disposition') ?? '')?.[1]
    const url = URL.createObjectURL(await answer.blob())
    const link = el('a', { href: url, download: name ?? 'weights.convoy' })
    link.click()
    setTimeout(() => URL.revokeObjectURL(url), 60_000)
  }
}
