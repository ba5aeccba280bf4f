import uPlot from 'uplot'
import { el, setText } from './dom.ts'
import { grouped } from './format.ts'

/** A line of a chart. */
export interface Line {
  readonly label: string
  /** Name of a colour of the style sheet: `--NAME`. */
  readonly colour: string
  readonly dash?: readonly number[]
  /** Draw a dot at each value: for values that are few. */
  readonly dots?: boolean
  readonly thin?: boolean
}

export interface ChartOptions {
  readonly title: string
  /** Smaller text behind the title. */
  readonly note?: string
  /** How a value is written. */
  readonly format: (value: number | null | undefined) => string
  /** How a value is written at the axis; otherwise as a short number. */
  readonly tick?: (value: number) => string
  /** What x counts, such as `step`. */
  x: string
  /** Fixed ends of the y axis. */
  readonly range?: readonly [number, number]
  /** Whether the y axis begins at 0. */
  readonly fromZero?: boolean
  /** Lines at fixed heights. */
  readonly marks?: readonly { at: number; label: string }[]
  /** Called with the ends of a stretch of x that was drawn with the mouse, or null for all of it. */
  readonly zoom: (range: [number, number] | null) => void
}

/** Where something changes for all lines. */
export interface Change {
  readonly x: number
  readonly label: string
}

/** One set of x, and the values of some lines there. */
export type Table = [x: number[], ...values: (number | null | undefined)[][]]

const HEIGHT = 230
const ROWS = 20

const colour = (name: string) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

/** A plot with its title, legend, a sentence for screen readers, arrow keys, and its values as a table. */
export class Chart {
  readonly element: HTMLElement
  readonly #options: ChartOptions
  readonly #plotBox = el('div', { class: 'plot', tabindex: 0, role: 'img' })
  readonly #legend = el('ul', { class: 'legend' })
  readonly #spoken = el('span', { class: 'hidden', 'aria-live': 'polite' })
  readonly #table = el('details', { class: 'values' }, el('summary', {}, 'Values as a table'))
  #plot: uPlot | undefined
  #lines: readonly Line[] = []
  #values: HTMLElement[] = []
  readonly #off = new Set<string>()
  #data: Table = [[]]
  #limits: [number, number] | undefined
  #changes: readonly Change[] = []
  #width = 0
  readonly #observer: ResizeObserver

  constructor(options: ChartOptions) {
    this.#options = options
    this.element = el(
      'figure',
      { class: 'card chart' },
      el(
        'figcaption',
        {},
        el('h3', {}, options.title),
        options.note !== undefined && el('small', {}, options.note),
      ),
      this.#legend,
      this.#plotBox,
      this.#spoken,
      this.#table,
    )
    this.#plotBox.addEventListener('keydown', (event) => this.#key(event))
    this.#plotBox.addEventListener('blur', () => this.#plot?.setCursor({ left: -10, top: -10 }))
    this.#table.addEventListener('toggle', () => this.#fillTable())
    this.#observer = new ResizeObserver(() => {
      const width = this.#plotBox.clientWidth
      this.#width = width
      if (this.#plot && width > 0 && width !== this.#plot.width) this.#plot.setSize({ width, height: HEIGHT })
    })
    this.#observer.observe(this.#plotBox)
  }

  /** Names what x counts. */
  rename(x: string): void {
    this.#options.x = x
    this.redraw()
  }

  /** How many pixels wide the plot is; 0 while it has no place yet. Does not have the page laid out. */
  get width(): number {
    return this.#width
  }

  /**
   * Shows values.
   *
   * @param lines What each column of all tables after its x is, in order.
   * @param limits The ends of the x axis.
   * @param changes To be marked; those beyond the limits are not.
   */
  show(
    lines: readonly Line[],
    tables: Table[],
    limits: [number, number],
    changes: readonly Change[] = [],
  ): void {
    this.#data = tables.length === 1 ? tables[0] : (uPlot.join(tables) as Table)
    this.#limits = limits
    this.#changes = changes
    if (!this.#plot || JSON.stringify(lines) !== JSON.stringify(this.#lines)) {
      this.#lines = lines
      this.redraw()
    } else {
      this.#plot.setData(this.#data, false)
      this.#plot.setScale('x', { min: limits[0], max: limits[1] })
    }
    this.#showValues(null)
    this.#describe()
    if (this.#table.open && !this.#table.matches(':hover, :focus-within')) this.#fillTable()
  }

  /** Makes the plot anew, such as in other colours. */
  redraw(): void {
    this.#plot?.destroy()
    this.#plot = new uPlot(this.#plotOptions(), this.#data, this.#plotBox)
    this.#plot.over.addEventListener('dblclick', () => this.#options.zoom(null))
    this.#makeLegend()
  }

  dispose(): void {
    this.#observer.disconnect()
    this.#plot?.destroy()
  }

  #plotOptions(): uPlot.Options {
    const { x } = this.#options
    const [grid, muted] = [colour('grid'), colour('muted')]
    const axis = {
      stroke: muted,
      grid: { stroke: grid, width: 1 },
      ticks: { show: false },
      font: '11px system-ui',
    }
    const compact = new Intl.NumberFormat('en-US', { notation: 'compact', maximumSignificantDigits: 3 })
    // What diverges has no word for its size.
    const number = (value: number) => (value < 1e12 ? compact.format(value) : value.toExponential(0))
    return {
      width: Math.max(200, this.#plotBox.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      scales: {
        x: { time: false, range: () => this.#limits ?? [0, 1] },
        y: {
          range: (_, low, high) => this.#yRange(low ?? 0, high ?? 1),
        },
      },
      axes: [
        {
          ...axis,
          label: x,
          labelSize: 16,
          labelFont: '11px system-ui',
          size: 26,
          values: (_, ticks) => ticks.map(number),
        },
        {
          ...axis,
          size: 48,
          values: (_, ticks) => ticks.map(this.#options.tick ?? number),
        },
      ],
      series: [
        {},
        ...this.#lines.map((line) => ({
          label: line.label,
          stroke: colour(line.colour),
          width: line.thin ? 1 : 2,
          show: !this.#off.has(line.label),
          points: { show: line.dots ?? false, size: 6, fill: colour(line.colour) },
          ...(line.dash ? { dash: [...line.dash] } : {}),
        })),
      ],
      cursor: {
        drag: { x: true, y: false, setScale: false },
        sync: { key: 'convoy', setSeries: false },
        y: false,
        points: { size: 7 },
      },
      hooks: {
        setCursor: [(plot) => this.#showValues(plot.cursor.idx ?? null)],
        setSelect: [
          (plot) => {
            const { left, width } = plot.select
            if (width < 4) return
            this.#options.zoom([plot.posToVal(left, 'x'), plot.posToVal(left + width, 'x')])
            plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
          },
        ],
        draw: [(plot) => this.#drawMarks(plot)],
      },
    }
  }

  /** The ends of the y axis. Noise in the last digits of a constant must not fill the plot. */
  #yRange(low: number, high: number): [number, number] {
    const { range, fromZero } = this.#options
    if (range) return [range[0], range[1]]
    if (fromZero) return [0, high > 0 ? 1.08 * high : 1]
    const pad = Math.max(0.08 * (high - low), 0.02 * Math.abs(high), 1e-6)
    return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad]
  }

  #drawMarks(plot: uPlot): void {
    const { left, top, width, height } = plot.bbox
    for (const { at, label } of this.#options.marks ?? []) {
      const y = plot.valToPos(at, 'y', true)
      if (y >= top && y <= top + height) drawMark(plot.ctx, [left, y], [left + width, y], label)
    }
    for (const { x: at, label } of this.#changes) {
      const x = plot.valToPos(at, 'x', true)
      if (x >= left && x <= left + width) drawMark(plot.ctx, [x, top], [x, top + height], label)
    }
  }

  #makeLegend(): void {
    this.#values = this.#lines.map(() => el('span', { class: 'value' }))
    this.#legend.replaceChildren(
      ...this.#lines.map((line, i) => {
        const button = el(
          'button',
          { type: 'button', 'aria-pressed': String(!this.#off.has(line.label)), title: 'Show or hide' },
          el('span', { class: `swatch ${line.colour}`, 'aria-hidden': 'true' }),
          `${line.label} `,
          this.#values[i],
        )
        button.addEventListener('click', () => {
          const on = this.#off.delete(line.label) || (this.#off.add(line.label), false)
          button.setAttribute('aria-pressed', String(on))
          this.#plot?.setSeries(i + 1, { show: on })
        })
        return el('li', {}, button)
      }),
    )
  }

  /** The values at an index of the data, or the last ones. */
  #showValues(index: number | null): void {
    this.#values.forEach((output, i) => {
      const column = this.#data[i + 1] ?? []
      let at = index ?? column.length - 1
      // Undefined is only between this line's values; null is where there is none.
      while (at > 0 && column[at] === undefined) at--
      setText(output, this.#options.format(column[at]))
    })
  }

  #describe(): void {
    const { title, format, x } = this.#options
    const xs = this.#data[0]
    const parts = this.#lines.map((line, i) => {
      const column = this.#data[i + 1] ?? []
      const is = (value: unknown) => typeof value === 'number'
      const first = column.find(is)
      if (first === undefined) return `${line.label}: no value yet`
      return `${line.label}: from ${format(first)} to ${format(column.findLast(is))}`
    })
    const span = xs.length > 0 ? `${x} ${Math.round(xs[0])} to ${Math.round(xs.at(-1)!)}` : 'no values yet'
    this.#plotBox.setAttribute(
      'aria-label',
      `${title}, ${span}. ${parts.join('; ')}. Arrow keys read values.`,
    )
  }

  #key(event: KeyboardEvent): void {
    const plot = this.#plot
    if (!plot) return
    const last = this.#data[0].length - 1
    const stride = Math.max(1, Math.round(last / 50))
    const now = plot.cursor.idx ?? last
    const at = { ArrowLeft: now - stride, ArrowRight: now + stride, Home: 0, End: last }[event.key]
    if (event.key === 'Escape') this.#options.zoom(null)
    if (at === undefined || last < 0) return
    event.preventDefault()
    const index = Math.min(last, Math.max(0, at))
    const where = this.#data[0][index]
    plot.setCursor({ left: plot.valToPos(where, 'x'), top: 10 })
    this.#showValues(index)
    const values = this.#lines.map((line, i) => `${line.label} ${this.#values[i].textContent}`)
    setText(this.#spoken, `${this.#options.x} ${Math.round(where)}: ${values.join(', ')}`)
  }

  #fillTable(): void {
    if (!this.#table.open) return
    const xs = this.#data[0]
    const stride = Math.max(1, Math.ceil(xs.length / ROWS))
    const rows: HTMLElement[] = []
    for (let at = xs.length - 1; at >= 0; at -= stride) {
      const cells = this.#lines.map((_, i) => {
        const column = this.#data[i + 1] ?? []
        let near = at
        while (near > Math.max(0, at - stride + 1) && typeof column[near] !== 'number') near--
        return el('td', {}, this.#options.format(column[near]))
      })
      rows.push(
        el('tr', {}, el('th', { scope: 'row' }, grouped.format(Number(xs[at].toPrecision(6)))), ...cells),
      )
    }
    const head = this.#lines.map((line) => el('th', { scope: 'col' }, line.label))
    const table = el(
      'table',
      {},
      el('caption', { class: 'hidden' }, `${this.#options.title}, newest first`),
      el('thead', {}, el('tr', {}, el('th', { scope: 'col' }, this.#options.x), ...head)),
      el('tbody', {}, ...rows),
    )
    const box = el(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Values: ${this.#options.title}` },
      table,
    )
    this.#table.querySelector('.scroll')?.remove()
    this.#table.append(box)
  }
}

/** Draws a broken line with its name at its beginning. */
function drawMark(
  ctx: CanvasRenderingContext2D,
  from: readonly [x: number, y: number],
  to: readonly [x: number, y: number],
  label: string,
): void {
  ctx.save()
  ctx.strokeStyle = ctx.fillStyle = colour('muted')
  ctx.lineWidth = devicePixelRatio
  ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio])
  ctx.beginPath()
  ctx.moveTo(...from)
  ctx.lineTo(...to)
  ctx.stroke()
  ctx.font = `${11 * devicePixelRatio}px system-ui`
  ctx.textAlign = 'left'
  ctx.textBaseline = 'top'
  ctx.fillText(label, from[0] + 4 * devicePixelRatio, from[1] + 3 * devicePixelRatio)
  ctx.restore()
}
