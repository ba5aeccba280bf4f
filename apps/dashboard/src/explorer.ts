import type { Padding } from '@convoy/model'
import type { Connection } from './connection.ts'
import { convolve, pool, relu, seen, slides, type Plane, type Pooling, type Sliding } from './convolution.ts'
import { el, setText } from './dom.ts'
import { drawGrid, numeral, type GridOptions } from './grid.ts'
import { decodeImage, errorText, fileInput } from './images.ts'
import { drawPattern, kernels, lightness, patterns } from './patterns.ts'
import type { View } from './view.ts'

const OWN = 'Own image'
const CUSTOM = 'Own numbers'
const SIDES = [2, 4, 8, 12, 16, 24, 32]
const LARGEST_KERNEL = 5
/** Width of the widest plane, and of a cell at most, in CSS pixels. */
const [WIDEST, LARGEST_CELL] = [336, 96]
const poolings: Readonly<Record<Pooling, string>> = { max: 'Maximum', average: 'Average', sum: 'Sum' }

const options = (names: readonly (string | number)[]) => names.map((name) => el('option', {}, name))
const number = (value: string) => (Number.isFinite(Number(value)) ? Number(value) : 0)

/** A plane as it is shown: a picture that is read with arrow keys, and its values as a table. */
interface Figure {
  readonly element: HTMLElement
  readonly canvas: HTMLCanvasElement
  readonly note: HTMLElement
  readonly table: HTMLDetailsElement
  /** What a pointer over it means: the cell it is on, counted without padding. */
  readonly place: { cell: number; top: number; left: number }
}

function makeFigure(title: string): Figure {
  const canvas = el('canvas', { role: 'img', 'aria-label': title })
  const note = el('small', {})
  const table = el('details', { class: 'values' }, el('summary', {}, 'Values as a table'))
  const element = el('figure', { class: 'plane' }, el('h3', {}, title), canvas, note, table)
  return { element, canvas, note, table, place: { cell: 1, top: 0, left: 0 } }
}

/** Slides a kernel over an image, with the arithmetic of one window written out. */
export class ExplorerView implements View {
  readonly element: HTMLElement
  readonly #connection: Connection
  readonly #gone = new AbortController()
  readonly #observer: ResizeObserver
  /** The image that was chosen; it is decoded anew for each size. */
  #file: File | undefined
  #image: Plane = drawPattern('White above black', 8)
  #kernel: number[][] = kernels['Horizontal line'].map((row) => [...row])
  /** The window that is written out: a place of the convolution's output. */
  #row = 3
  #column = 0
  readonly #pattern = el('select', {}, ...options(Object.keys(patterns)))
  readonly #side = el('select', {}, ...options(SIDES))
  readonly #preset = el('select', {}, ...options([...Object.keys(kernels), CUSTOM]))
  readonly #rows = el('select', {}, ...options([1, 2, 3, 4, 5]))
  readonly #columns = el('select', {}, ...options([1, 2, 3, 4, 5]))
  readonly #cells = el('div', { class: 'kernel', role: 'group', 'aria-label': 'Kernel' })
  readonly #stride = el('select', {}, ...options([1, 2, 3, 4]))
  readonly #padding = el('select', {}, ...options(['valid', 'same']))
  readonly #relu = el('input', { type: 'checkbox' })
  readonly #pooling = el(
    'select',
    {},
    el('option', { value: '' }, 'None'),
    ...Object.entries(poolings).map(([value, name]) => el('option', { value }, name)),
  )
  readonly #poolSize = el('select', {}, ...options([2, 3, 4]))
  readonly #poolStride = el('select', {}, ...options([1, 2, 3, 4]))
  readonly #poolFields = el('div', { class: 'pair' })
  readonly #error = el('p', { class: 'error', role: 'alert' })
  readonly #input = makeFigure('Image')
  readonly #output = makeFigure('Output')
  readonly #pooled = makeFigure('Pooled')
  readonly #planes = el(
    'div',
    { class: 'planes' },
    this.#input.element,
    this.#output.element,
    this.#pooled.element,
  )
  readonly #arithmetic = el('div', { class: 'arithmetic' })
  readonly #spoken = el('span', { class: 'hidden', 'aria-live': 'polite' })

  constructor(connection: Connection) {
    this.#connection = connection
    this.#side.value = '8'
    this.#poolStride.value = '2'
    this.element = el(
      'div',
      { class: 'stack explorer' },
      el('h1', { class: 'plain' }, 'Convolution explorer'),
    )
    const file = fileInput(
      this.element,
      'Own image',
      { accept: 'image/*' },
      this.#gone.signal,
      ([chosen]) => {
        this.#file = chosen
        if (![...this.#pattern.options].some(({ value }) => value === OWN))
          this.#pattern.append(el('option', {}, OWN))
        this.#pattern.value = OWN
        this.#side.value = '32'
        void this.#load()
      },
    )
    this.element.append(
      el(
        'div',
        { class: 'bench' },
        this.#controls(file),
        el(
          'div',
          { class: 'stack' },
          el('section', { class: 'card', 'aria-label': 'Image and output' }, this.#planes),
          el(
            'section',
            { class: 'card', 'aria-labelledby': 'window-title' },
            el('h2', { id: 'window-title' }, 'One window'),
            this.#arithmetic,
            el('small', {}, 'Point at a picture, or go through the output with the arrow keys.'),
          ),
        ),
      ),
      this.#spoken,
    )
    this.#listen()
    this.#makeCells()
    this.#observer = new ResizeObserver(() => this.redraw())
    this.#observer.observe(this.#planes)
    document.title = 'Convolution explorer – Convoy'
  }

  /** The settings, with the input of a file among them. */
  #controls(file: HTMLElement): HTMLElement {
    const field = (label: string, input: HTMLElement) => el('label', {}, label, input)
    const group = (legend: string, ...parts: HTMLElement[]) =>
      el('fieldset', {}, el('legend', {}, legend), ...parts)
    this.#poolFields.append(field('Pool size', this.#poolSize), field('Pool stride', this.#poolStride))
    return el(
      'section',
      { class: 'card controls', 'aria-label': 'Settings' },
      group(
        'Image',
        el('div', { class: 'pair' }, field('Picture', this.#pattern), field('Pixels a side', this.#side)),
        file,
        this.#error,
      ),
      group(
        'Kernel',
        field('Preset', this.#preset),
        el('div', { class: 'pair' }, field('Rows', this.#rows), field('Columns', this.#columns)),
        this.#cells,
      ),
      group(
        'Sliding',
        el('div', { class: 'pair' }, field('Stride', this.#stride), field('Padding', this.#padding)),
      ),
      group(
        'Afterwards',
        el('label', { class: 'check' }, this.#relu, 'ReLU: negative numbers become 0'),
        field('Pooling', this.#pooling),
        this.#poolFields,
      ),
    )
  }

  refresh(): void {}

  push(): void {}

  dispose(): void {
    this.#gone.abort()
    this.#observer.disconnect()
  }

  get #sliding(): Sliding {
    return {
      size: [this.#kernel.length, this.#kernel[0].length],
      stride: Number(this.#stride.value),
      padding: this.#padding.value as Padding,
    }
  }

  get #poolSliding(): Sliding {
    const size = Number(this.#poolSize.value)
    return {
      size: [size, size],
      stride: Number(this.#poolStride.value),
      padding: this.#padding.value as Padding,
    }
  }

  #listen(): void {
    for (const select of [this.#pattern, this.#side]) {
      select.addEventListener('change', () => void this.#load())
    }
    this.#preset.addEventListener('change', () => {
      const chosen = kernels[this.#preset.value]
      if (!chosen) return
      this.#kernel = chosen.map((row) => [...row])
      this.#makeCells()
      this.redraw()
    })
    for (const select of [this.#rows, this.#columns]) {
      select.addEventListener('change', () => {
        const [rows, columns] = [Number(this.#rows.value), Number(this.#columns.value)]
        this.#kernel = Array.from({ length: rows }, (_, y) =>
          Array.from({ length: columns }, (_, x) => this.#kernel[y]?.[x] ?? 0),
        )
        this.#preset.value = CUSTOM
        this.#makeCells()
        this.redraw()
      })
    }
    const others = [this.#stride, this.#padding, this.#relu, this.#pooling, this.#poolSize, this.#poolStride]
    for (const input of others) input.addEventListener('change', () => this.redraw())
    for (const figure of [this.#input, this.#output, this.#pooled]) {
      const move = (event: PointerEvent) => this.#point(figure, event)
      figure.canvas.addEventListener('pointermove', move)
      figure.canvas.addEventListener('pointerdown', move)
      figure.table.addEventListener('toggle', () => this.redraw())
    }
    this.#output.canvas.tabIndex = 0
    this.#output.canvas.addEventListener('keydown', (event) => this.#key(event))
  }

  /** Takes the image that is chosen now. */
  async #load(): Promise<void> {
    const [name, side] = [this.#pattern.value, Number(this.#side.value)]
    try {
      setText(this.#error, '')
      if (name !== OWN) this.#image = drawPattern(name, side)
      else {
        const pixels = await decodeImage(this.#connection, this.#file!, side)
        // Meanwhile another may have been chosen.
        if (this.#pattern.value !== OWN || this.#side.value !== String(side)) return
        this.#image = lightness(pixels, side)
      }
    } catch (error) {
      setText(this.#error, errorText(error))
    }
    this.redraw()
  }

  #makeCells(): void {
    this.#rows.value = String(this.#kernel.length)
    this.#columns.value = String(this.#kernel[0].length)
    this.#cells.replaceChildren(
      ...this.#kernel.flatMap((row, y) =>
        row.map((value, x) => {
          const input = el('input', {
            type: 'number',
            step: 0.5,
            value,
            'aria-label': `Kernel, row ${y + 1}, column ${x + 1}`,
          })
          input.addEventListener('input', () => {
            this.#kernel[y][x] = number(input.value)
            this.#preset.value = CUSTOM
            this.redraw()
          })
          return input
        }),
      ),
    )
    this.#cells.style.gridTemplateColumns = `repeat(${this.#kernel[0].length}, minmax(0, 1fr))`
    this.#cells.style.maxWidth = `${(100 * this.#kernel[0].length) / LARGEST_KERNEL}%`
  }

  #point(figure: Figure, event: PointerEvent): void {
    const { cell, top, left } = figure.place
    const [y, x] = [Math.floor(event.offsetY / cell) - top, Math.floor(event.offsetX / cell) - left]
    if (figure === this.#output) return this.#go(y, x)
    const sliding = figure === this.#input ? this.#sliding : this.#poolSliding
    const { size, stride } = sliding
    if (figure === this.#input) {
      const { rows, columns } = slides(this.#image, sliding)
      // The window whose middle is nearest.
      const nearest = (at: number, before: number, length: number) =>
        Math.round((at + before - (length - 1) / 2) / stride)
      return this.#go(nearest(y, rows.before, size[0]), nearest(x, columns.before, size[1]))
    }
    const { rows, columns } = slides(this.#convolved(), sliding)
    this.#go(Math.max(0, y * stride - rows.before), Math.max(0, x * stride - columns.before))
  }

  #key(event: KeyboardEvent): void {
    const { height, width } = this.#convolved()
    const to = {
      ArrowUp: [this.#row - 1, this.#column],
      ArrowDown: [this.#row + 1, this.#column],
      ArrowLeft: [this.#row, this.#column - 1],
      ArrowRight: [this.#row, this.#column + 1],
      Home: [0, 0],
      End: [height - 1, width - 1],
    }[event.key]
    if (!to) return
    event.preventDefault()
    this.#go(to[0], to[1])
    const spoken = this.#arithmetic.querySelector('[data-result]')?.textContent ?? ''
    setText(this.#spoken, `Row ${this.#row + 1}, column ${this.#column + 1}: ${spoken}`)
  }

  #go(row: number, column: number): void {
    if (row === this.#row && column === this.#column) return
    this.#row = row
    this.#column = column
    this.redraw()
  }

  /** The convolution, and ReLU where it is asked for. */
  #convolved(): Plane {
    const kernel: Plane = {
      height: this.#kernel.length,
      width: this.#kernel[0].length,
      values: Float64Array.from(this.#kernel.flat()),
    }
    const { stride, padding } = this.#sliding
    const sums = convolve(this.#image, kernel, stride, padding)
    return this.#relu.checked ? relu(sums) : sums
  }

  redraw(): void {
    const sliding = this.#sliding
    const output = this.#convolved()
    const kind = this.#pooling.value as Pooling | ''
    const { rows, columns } = slides(this.#image, sliding)
    this.#row = Math.max(0, Math.min(this.#row, output.height - 1))
    this.#column = Math.max(0, Math.min(this.#column, output.width - 1))
    const fits = output.values.length > 0
    this.#poolFields.hidden = kind === ''

    const widest = this.#image.width + columns.before + columns.after
    const room = Math.min(WIDEST, this.#planes.clientWidth || WIDEST)
    const cell = Math.max(1, Math.min(LARGEST_CELL, Math.floor(room / widest)))
    show(this.#input, this.#image, {
      cell,
      colours: 'grey',
      padding: [rows.before, columns.after, rows.after, columns.before],
      marked: fits
        ? {
            row: this.#row * sliding.stride - rows.before,
            column: this.#column * sliding.stride - columns.before,
            height: sliding.size[0],
            width: sliding.size[1],
          }
        : undefined,
    })
    show(this.#output, output, {
      cell,
      colours: 'signed',
      marked: fits ? { row: this.#row, column: this.#column, height: 1, width: 1 } : undefined,
    })
    this.#output.canvas.setAttribute(
      'aria-label',
      `${describe('Output', output)} Row ${this.#row + 1}, column ${this.#column + 1}. Arrow keys move the window.`,
    )

    let taken: [row: number, column: number] | undefined
    this.#pooled.element.hidden = kind === ''
    if (kind !== '') {
      const after = this.#poolSliding
      const pooled = pool(output, kind, after)
      taken = takenBy(output, pooled, after, this.#row, this.#column)
      const marked = taken && { row: taken[0], column: taken[1], height: 1, width: 1 }
      show(this.#pooled, pooled, { cell, colours: 'signed', marked })
    }
    this.#writeArithmetic(output, taken)
  }

  #writeArithmetic(output: Plane, taken: [row: number, column: number] | undefined): void {
    if (output.values.length === 0) {
      this.#arithmetic.replaceChildren(
        el(
          'p',
          {},
          'The kernel is larger than the image. Take a smaller kernel, more pixels, or same padding.',
        ),
      )
      return
    }
    const window = seen(this.#image, this.#sliding, this.#row, this.#column)
    const width = this.#kernel[0].length
    const weights = this.#kernel.flat()
    const sum = window.reduce((total, { value }, i) => total + weights[i] * value, 0)
    const rows = this.#kernel.map((_, y) => {
      const terms = window.slice(y * width, (y + 1) * width).map(({ value, inside }, x) => {
        const at = y * width + x
        const weight = weights[at]
        const sign = weight < 0 ? '−' : at === 0 ? '' : '+'
        const text = `${sign}${at === 0 ? '' : ' '}${numeral(Math.abs(weight))} × ${numeral(value)}`
        return el('span', inside ? {} : { class: 'muted', title: 'of the padding' }, `${text} `)
      })
      return el('div', { class: 'terms' }, ...terms)
    })
    rows.at(-1)!.append(el('strong', { 'data-sum': '' }, `= ${numeral(sum)}`))
    const lines: HTMLElement[] = [
      el('p', { class: 'muted' }, `Row ${this.#row + 1}, column ${this.#column + 1} of the output`),
      ...rows,
    ]
    const result = this.#relu.checked ? Math.max(0, sum) : sum
    const line = (name: string, text: string, value: number) =>
      el('div', { class: 'terms' }, `${name}: ${text} `, el('strong', {}, `= ${numeral(value)}`))
    if (this.#relu.checked) lines.push(line('ReLU', `max(0, ${numeral(sum)})`, result))
    const kind = this.#pooling.value as Pooling | ''
    if (kind !== '') {
      if (!taken) lines.push(el('p', { class: 'muted' }, 'No whole pooling window takes this number.'))
      else {
        const after = this.#poolSliding
        const values = seen(output, after, ...taken)
          .filter(({ inside }) => inside)
          .map(({ value }) => numeral(value))
        const value = pool(output, kind, after).values[taken[0] * poolWidth(output, after) + taken[1]]
        const joined = values.map((one, i) => (i > 0 && one.startsWith('−') ? `(${one})` : one)).join(' + ')
        const text =
          kind === 'max'
            ? `max(${values.join(', ')})`
            : kind === 'sum'
              ? joined
              : `(${joined}) / ${values.length}`
        lines.push(line(`${poolings[kind]} of its pooling window`, text, value))
      }
    }
    lines.push(el('span', { class: 'hidden', 'data-result': '' }, numeral(result)))
    this.#arithmetic.replaceChildren(...lines)
  }
}

const poolWidth = (input: Plane, sliding: Sliding) => Math.max(0, slides(input, sliding).columns.output)

/** The pooling window that takes an element, the last where several do; undefined where none does. */
function takenBy(
  input: Plane,
  pooled: Plane,
  sliding: Sliding,
  row: number,
  column: number,
): [number, number] | undefined {
  const { rows, columns } = slides(input, sliding)
  const last = (at: number, before: number, count: number, size: number) => {
    const window = Math.min(count - 1, Math.floor((at + before) / sliding.stride))
    return window >= 0 && at + before < window * sliding.stride + size ? window : undefined
  }
  const y = last(row, rows.before, pooled.height, sliding.size[0])
  const x = last(column, columns.before, pooled.width, sliding.size[1])
  return y === undefined || x === undefined ? undefined : [y, x]
}

function describe(title: string, { height, width, values }: Plane): string {
  if (values.length === 0) return `${title}: nothing.`
  const [least, most] = [
    values.reduce((a, b) => Math.min(a, b)),
    values.reduce((a, b) => Math.max(a, b)),
  ].map((value) => numeral(value))
  return `${title}: ${height}×${width}, ${least === most ? least : `${least} to ${most}`}.`
}

function show(figure: Figure, plane: Plane, options: GridOptions): void {
  const title = figure.element.querySelector('h3')!.textContent
  figure.place.cell = options.cell
  figure.place.top = options.padding?.[0] ?? 0
  figure.place.left = options.padding?.[3] ?? 0
  figure.canvas.setAttribute('aria-label', describe(title, plane))
  setText(figure.note, describe('', plane).replace(/^: /, '').replace(/\.$/, ''))
  drawGrid(figure.canvas, plane, options)
  if (!figure.table.open) return
  const rows = Array.from({ length: plane.height }, (_, y) =>
    el(
      'tr',
      {},
      ...[...plane.values.subarray(y * plane.width, (y + 1) * plane.width)].map((value) =>
        el('td', {}, numeral(value)),
      ),
    ),
  )
  figure.table.querySelector('.scroll')?.remove()
  figure.table.append(
    el(
      'div',
      { class: 'scroll', tabindex: 0, role: 'region', 'aria-label': `Values: ${title}` },
      el('table', {}, el('caption', { class: 'hidden' }, title), el('tbody', {}, ...rows)),
    ),
  )
}
