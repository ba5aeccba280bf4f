/** A text as HTML or SVG shows it, as it is. */
export const escape = (text: string) => text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`)

type Value = number | null

/** A line of a chart: a value at each step, null where there is none. */
export interface Series {
  readonly name: string
  /** A CSS colour. */
  readonly colour: string
  readonly steps: readonly number[]
  readonly values: readonly Value[]
  /** Drawn as dots joined by a line. */
  readonly dots?: boolean
}

export interface ChartOptions {
  readonly title: string
  /** A value as the axis shows it. */
  readonly show: (value: number) => string
  /** A level that is marked, with its name. */
  readonly mark?: { readonly level: number; readonly name: string }
  /** Whether the axis begins at 0. */
  readonly fromZero?: boolean
}

const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [480, 230, 68, 12, 10, 24]

/** Round numbers, one for each `share` of the span or so, that enclose what is to be shown. */
export function ticks(low: number, high: number, share = 0.25): number[] {
  const span = high - low || Math.abs(high) || 1
  const rough = span * share
  const power = 10 ** Math.floor(Math.log10(rough))
  const step = power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10)
  const first = Math.floor(low / step + 1e-9)
  const last = Math.max(first + 1, Math.ceil(high / step - 1e-9))
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)))
}

/** A chart of lines over the steps of a run, as an SVG figure with a legend; undefined where there is nothing to show. */
export function chart(series: readonly Series[], options: ChartOptions): string | undefined {
  const { title, show, mark, fromZero } = options
  const drawn = series.filter(({ values }) => values.some((value) => value !== null))
  if (drawn.length === 0) return undefined
  // Not Math.min(...): a run may have hundreds of thousands of rows.
  let [low, high, end] = [fromZero ? 0 : Infinity, mark?.level ?? -Infinity, 1]
  for (const { steps, values } of drawn) {
    values.forEach((value, i) => {
      if (value === null) return
      low = Math.min(low, value)
      high = Math.max(high, value)
      end = Math.max(end, steps[i])
    })
  }
  const levels = ticks(low, high)
  const [bottom, top] = [levels[0], levels.at(-1)!]
  const x = (step: number) => (LEFT + (step / end) * (WIDTH - LEFT - RIGHT)).toFixed(1)
  const y = (value: number) => (TOP + ((top - value) / (top - bottom)) * (HEIGHT - TOP - BOTTOM)).toFixed(1)
  const grid = levels.map(
    (level) =>
      `<path class="grid" d="M${LEFT} ${y(level)}H${WIDTH - RIGHT}"/><text x="${LEFT - 6}" y="${Number(y(level)) + 4}" text-anchor="end">${escape(show(level))}</text>`,
  )
  const stepTicks = ticks(0, end, 0.16).filter((step) => step <= end && Number.isInteger(step))
  const foot = stepTicks.map(
    (step) =>
      `<text x="${x(step)}" y="${HEIGHT - 8}" text-anchor="middle">${step.toLocaleString('en-US')}</text>`,
  )
  const lines = drawn.map(({ colour, steps, values, dots }) => {
    let path = ''
    let pen = 'M'
    values.forEach((value, i) => {
      if (value === null) return void (pen = 'M')
      path += `${pen}${x(steps[i])} ${y(value)}`
      pen = 'L'
    })
    const points = values.map((value, i) =>
      dots && value !== null ? `<circle cx="${x(steps[i])}" cy="${y(value)}" r="2.5" fill="${colour}"/>` : '',
    )
    return `<path d="${path}" stroke="${colour}" class="line"/>${points.join('')}`
  })
  const marked = mark
    ? `<path class="mark" d="M${LEFT} ${y(mark.level)}H${WIDTH - RIGHT}"/><text x="${WIDTH - RIGHT}" y="${Number(y(mark.level)) + 13}" text-anchor="end">${escape(mark.name)}</text>`
    : ''
  const legend = drawn
    .map(({ name, colour }) => `<span><i style="background:${colour}"></i>${escape(name)}</span>`)
    .join('')
  return `<figure><figcaption>${escape(title)}<small>${legend}</small></figcaption>
<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="${escape(title)} over the steps of the run">${grid.join('')}${foot.join('')}${marked}${lines.join('')}</svg></figure>`
}
