import type { Plane } from './convolution.ts'

/** What is drawn as white: 200, so that the line detector's sums are the ones of textbooks. */
const WHITE = 200

/** Whether the pixel at row y and column x of a square of `side` is white. */
type Pattern = (y: number, x: number, side: number) => boolean

/** Images to begin with, by their names. */
export const patterns: Readonly<Record<string, Pattern>> = {
  'White above black': (y, _, side) => y < side / 2,
  'Flat patch': () => true,
  'White left of black': (_, x, side) => x < side / 2,
  Checkerboard: (y, x) => (x + y) % 2 === 0,
  Diagonal: (y, x) => x === y,
  Ring: (y, x, side) => {
    const middle = (side - 1) / 2
    const far = Math.hypot(y - middle, x - middle) / side
    return far > 0.25 && far < 0.42
  },
}

/** A pattern as a square image, 0 or 200. */
export function drawPattern(name: string, side: number): Plane {
  const values = Float64Array.from({ length: side * side }, (_, i) =>
    patterns[name](Math.floor(i / side), i % side, side) ? WHITE : 0,
  )
  return { height: side, width: side, values }
}

/** The lightness of RGB bytes [side, side, 3], 0 to 255 in whole numbers (Rec. 601 luma). */
export function lightness(pixels: Uint8Array, side: number): Plane {
  const values = Float64Array.from({ length: side * side }, (_, i) =>
    Math.round(0.299 * pixels[3 * i] + 0.587 * pixels[3 * i + 1] + 0.114 * pixels[3 * i + 2]),
  )
  return { height: side, width: side, values }
}

/** Kernels to begin with, by their names. */
export const kernels: Readonly<Record<string, readonly (readonly number[])[]>> = {
  'Horizontal line': [
    [1.5, 1.5],
    [-1.5, -1.5],
  ],
  'Vertical line': [
    [1.5, -1.5],
    [1.5, -1.5],
  ],
  'Edges (Laplacian)': [
    [0, -1, 0],
    [-1, 4, -1],
    [0, -1, 0],
  ],
  'Edges (Sobel)': [
    [1, 2, 1],
    [0, 0, 0],
    [-1, -2, -1],
  ],
  Sharpen: [
    [0, -1, 0],
    [-1, 5, -1],
    [0, -1, 0],
  ],
  'Blur 5×5': Array.from({ length: 5 }, () => Array<number>(5).fill(0.04)),
}
