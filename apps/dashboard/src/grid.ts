import type { Plane } from './convolution.ts'

type Colour = readonly [red: number, green: number, blue: number]

/** Cells that are outlined. */
export interface Marked {
  readonly row: number
  readonly column: number
  readonly height: number
  readonly width: number
}

export interface GridOptions {
  /** Width and height of a cell, in CSS pixels. */
  readonly cell: number
  /** `grey` is 0 to 255; `signed` is blue below 0 and orange above, by the largest number. */
  readonly colours: 'grey' | 'signed'
  /** Rows and columns of padding around the plane. */
  readonly padding?: readonly [top: number, right: number, bottom: number, left: number]
  readonly marked?: Marked | undefined
}

/** Smallest and largest text, and what stays free beside it: a cell's frame. */
const [SMALL, LARGE, FRAME] = [7.5, 14, 6]

/** A colour of the style sheet, `--NAME`. */
function themeColour(context: CanvasRenderingContext2D, name: string): Colour {
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()
  // However it was written, it is #rrggbb now.
  return [1, 3, 5].map((at) => parseInt(String(context.fillStyle).slice(at, at + 2), 16)) as unknown as Colour
}

const css = ([red, green, blue]: Colour) => `rgb(${red} ${green} ${blue})`
const mix = (a: Colour, b: Colour, share: number) =>
  a.map((value, i) => Math.round(value + share * (b[i] - value))) as unknown as Colour
const light = ([red, green, blue]: Colour) => 0.299 * red + 0.587 * green + 0.114 * blue > 128

/** A number in few digits, with a proper minus. */
export function numeral(value: number, digits = 6): string {
  return String(Number(value.toPrecision(digits)) + 0).replace('-', '−')
}

/** Draws numbers as coloured cells, and writes them where there is room for the longest. */
export function drawGrid(canvas: HTMLCanvasElement, plane: Plane, options: GridOptions): void {
  const { cell, colours, padding = [0, 0, 0, 0], marked } = options
  const [top, right, bottom, left] = padding
  const [rows, columns] = [plane.height + top + bottom, plane.width + left + right]
  const scale = devicePixelRatio
  canvas.width = Math.max(1, Math.round(columns * cell * scale))
  canvas.height = Math.max(1, Math.round(rows * cell * scale))
  canvas.style.width = `${columns * cell}px`
  canvas.style.height = `${rows * cell}px`
  const context = canvas.getContext('2d')!
  context.scale(scale, scale)
  const [soft, card, orange, blue, muted] = ['soft', 'card', 'orange', 'blue', 'muted'].map((name) =>
    themeColour(context, name),
  )
  context.fillStyle = css(soft)
  context.fillRect(0, 0, columns * cell, rows * cell)
  const largest = plane.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) || 1
  context.textAlign = 'center'
  context.textBaseline = 'middle'
  const texts = Array.from(plane.values, (value) => numeral(value, 4))
  context.font = '100px system-ui'
  const longest = texts.reduce((most, text) => Math.max(most, context.measureText(text).width), 0) / 100
  const size = Math.min(LARGE, 0.4 * cell, (cell - FRAME) / longest)
  context.font = `${size}px system-ui`
  const write = (text: string, row: number, column: number, colour: string) => {
    if (size < SMALL) return
    context.fillStyle = colour
    context.fillText(text, (column + 0.5) * cell, (row + 0.5) * cell)
  }
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const [y, x] = [row - top, column - left]
      if (y < 0 || y >= plane.height || x < 0 || x >= plane.width) {
        write('0', row, column, css(muted))
        continue
      }
      const value = plane.values[y * plane.width + x]
      const grey = Math.round(Math.min(255, Math.max(0, value)))
      const colour: Colour =
        colours === 'grey'
          ? [grey, grey, grey]
          : mix(card, value < 0 ? blue : orange, Math.abs(value) / largest)
      context.fillStyle = css(colour)
      context.fillRect(column * cell, row * cell, cell, cell)
      write(texts[y * plane.width + x], row, column, light(colour) ? '#000' : '#fff')
    }
  }
  if (!marked) return
  const box = [
    (marked.column + left) * cell,
    (marked.row + top) * cell,
    marked.width * cell,
    marked.height * cell,
  ] as const
  // Two lines, so that it is seen on any colour.
  for (const [width, colour] of [
    [4, card],
    [2, orange],
  ] as const) {
    context.lineWidth = width
    context.strokeStyle = css(colour)
    context.strokeRect(box[0] + 2, box[1] + 2, box[2] - 4, box[3] - 4)
  }
}
