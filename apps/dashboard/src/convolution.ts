import { slides as slidesOf, type Padding, type Slide } from '@convoy/model'

/** Numbers in rows and columns: one channel of an image, or a kernel. */
export interface Plane {
  readonly height: number
  readonly width: number
  /** Row by row, [height · width]. */
  readonly values: Float64Array
}

/** How windows of one size slide over a plane; both directions have one stride. */
export interface Sliding {
  /** [rows, columns] of the window. */
  readonly size: readonly [number, number]
  readonly stride: number
  /** As TensorFlow has it: `same` pads with zeros, the odd one after. */
  readonly padding: Padding
}

/** An element that a window sees. */
export interface Seen {
  readonly value: number
  /** Whether it is of the plane, not of its padding. */
  readonly inside: boolean
}

export type Pooling = 'max' | 'average' | 'sum'

/** A plane from its rows. */
export function plane(rows: readonly (readonly number[])[]): Plane {
  return { height: rows.length, width: rows[0].length, values: Float64Array.from(rows.flat()) }
}

/** Places and padding of the windows, by row and by column; `output` is below 1 where no window fits. */
export function slides(input: Plane, { size, stride, padding }: Sliding): { rows: Slide; columns: Slide } {
  const [rows, columns] = slidesOf([input.height, input.width], { size, stride: [stride, stride], padding })
  return { rows, columns }
}

/** What the window at an output's row and column sees, row by row, [size[0] · size[1]]. */
export function seen(input: Plane, sliding: Sliding, row: number, column: number): Seen[] {
  const { rows, columns } = slides(input, sliding)
  const [height, width] = sliding.size
  const top = row * sliding.stride - rows.before
  const left = column * sliding.stride - columns.before
  return Array.from({ length: height * width }, (_, i) => {
    const y = top + Math.floor(i / width)
    const x = left + (i % width)
    const inside = y >= 0 && y < input.height && x >= 0 && x < input.width
    return { value: inside ? input.values[y * input.width + x] : 0, inside }
  })
}

function each(input: Plane, sliding: Sliding, reduce: (window: Seen[]) => number): Plane {
  const { rows, columns } = slides(input, sliding)
  const [height, width] = [Math.max(0, rows.output), Math.max(0, columns.output)]
  const values = Float64Array.from({ length: height * width }, (_, i) =>
    reduce(seen(input, sliding, Math.floor(i / width), i % width)),
  )
  return { height, width, values }
}

/** The sum of products of the kernel with each window: a convolution as networks have it, the kernel not turned. */
export function convolve(input: Plane, kernel: Plane, stride: number, padding: Padding): Plane {
  const sliding: Sliding = { size: [kernel.height, kernel.width], stride, padding }
  return each(input, sliding, (window) =>
    window.reduce((sum, { value }, i) => sum + kernel.values[i] * value, 0),
  )
}

/** Negative numbers become 0. */
export function relu(input: Plane): Plane {
  return { ...input, values: input.values.map((value) => Math.max(0, value)) }
}

/** One number a window. Padding is no candidate for the largest and does not count in the average. */
export function pool(input: Plane, kind: Pooling, sliding: Sliding): Plane {
  return each(input, sliding, (window) => {
    const values = window.filter(({ inside }) => inside).map(({ value }) => value)
    if (kind === 'max') return Math.max(...values)
    const sum = values.reduce((a, b) => a + b, 0)
    return kind === 'sum' ? sum : sum / values.length
  })
}
