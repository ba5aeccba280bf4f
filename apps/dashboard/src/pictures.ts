import type { Pictures } from './network.ts'

function paint(canvas: HTMLCanvasElement, width: number, height: number, rgba: Uint8ClampedArray): void {
  canvas.width = width
  canvas.height = height
  canvas.getContext('2d')!.putImageData(new ImageData(new Uint8ClampedArray(rgba), width, height), 0, 0)
}

/** Draws RGB bytes [side, side, 3]. */
export function drawPixels(canvas: HTMLCanvasElement, pixels: Uint8Array, side: number): void {
  const rgba = new Uint8ClampedArray(4 * side * side).fill(255)
  for (let i = 0; i < side * side; i++) rgba.set(pixels.subarray(3 * i, 3 * i + 3), 4 * i)
  paint(canvas, side, side, rgba)
}

/** Draws one picture of numbers from 0 on: black, over orange, to white. */
export function drawHeat(canvas: HTMLCanvasElement, { height, width, values }: Pictures): void {
  const largest = values.reduce((a, b) => Math.max(a, b), 0) || 1
  const rgba = new Uint8ClampedArray(4 * height * width)
  values.forEach((value, i) => {
    // The square root shows what would be lost in the dark.
    const share = Math.sqrt(value / largest)
    rgba.set([512 * share, 384 * share - 64, 512 * share - 300, 255], 4 * i)
  })
  paint(canvas, width, height, rgba)
}

/** Draws pictures in rows, with a gap between; each from its smallest number to its largest. */
export function drawPictures(canvas: HTMLCanvasElement, pictures: Pictures): void {
  const { count, height, width, channels, values } = pictures
  const columns = Math.ceil(Math.sqrt(1.5 * count))
  const rows = Math.ceil(count / columns)
  // So that the gap is thin beside a picture, however few pixels that has.
  const scale = Math.max(1, Math.round(16 / width))
  const [cellWidth, cellHeight] = [width * scale + 2, height * scale + 2]
  const [fullWidth, fullHeight] = [columns * cellWidth, rows * cellHeight]
  const rgba = new Uint8ClampedArray(4 * fullWidth * fullHeight)
  const size = height * width * channels
  for (let picture = 0; picture < count; picture++) {
    const one = values.subarray(picture * size, (picture + 1) * size)
    const least = one.reduce((a, b) => Math.min(a, b))
    const range = one.reduce((a, b) => Math.max(a, b)) - least
    const byte = (value: number) => (range > 0 ? (255 * (value - least)) / range : 0)
    const top = Math.floor(picture / columns) * cellHeight + 1
    const left = (picture % columns) * cellWidth + 1
    for (let y = 0; y < height * scale; y++) {
      for (let x = 0; x < width * scale; x++) {
        const from = (Math.floor(y / scale) * width + Math.floor(x / scale)) * channels
        const colour = [0, 1, 2].map((c) => byte(one[from + (channels === 3 ? c : 0)]))
        rgba.set([...colour, 255], 4 * ((top + y) * fullWidth + left + x))
      }
    }
  }
  paint(canvas, fullWidth, fullHeight, rgba)
}
