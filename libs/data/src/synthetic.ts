import { Purpose, RandomStream } from '@convoy/random'
import { makeDataset, type Dataset, type Split } from './dataset.ts'

/**
 * A data set that needs nothing: drawn from a seed. Its ten classes are made of three cues, and no one or two of them
 * are enough: what shape stands in the image, whether it is warm or cold in colour, and which way its stripes run. Place,
 * size, brightness, phase and background are random, so that no single pixel says much.
 */

const shapes = ['disc', 'square', 'triangle'] as const
type ShapeName = (typeof shapes)[number]

interface ClassSpec {
  readonly shape: ShapeName
  readonly warm: boolean
  /** Stripes across (rows), or down (columns). */
  readonly across: boolean
}

/** Ten of the twelve combinations. */
const specs: readonly ClassSpec[] = shapes
  .flatMap((shape) =>
    [true, false].flatMap((warm) => [true, false].map((across) => ({ shape, warm, across }))),
  )
  .slice(0, 10)

const nameOf = ({ shape, warm, across }: ClassSpec) =>
  `${warm ? 'warm' : 'cold'}-${shape}-${across ? 'across' : 'down'}`

function inside(shape: ShapeName, dx: number, dy: number, radius: number): boolean {
  switch (shape) {
    case 'disc':
      return dx * dx + dy * dy <= radius * radius
    case 'square':
      return Math.abs(dx) <= 0.85 * radius && Math.abs(dy) <= 0.85 * radius
    case 'triangle':
      return dy <= 0.8 * radius && 2 * Math.abs(dx) <= dy + 1.2 * radius
  }
}

/** Draws one image [size, size, 3]. */
function draw(spec: ClassSpec, size: number, random: RandomStream, into: Uint8Array, at: number): void {
  const unit = size / 32
  const radius = unit * (7 + random.below(5))
  const cx = size / 2 + unit * (random.below(11) - 5)
  const cy = size / 2 + unit * (random.below(11) - 5)
  const strong = 150 + random.below(90)
  const weak = 30 + random.below(60)
  const phase = random.below(4)
  const ground = 60 + random.below(130)
  const noise = 24
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++, at += 3) {
      const bits = random.uint32()
      let red = ground
      let green = ground
      let blue = ground
      if (inside(spec.shape, x - cx, y - cy, radius)) {
        const stripe = ((((spec.across ? y : x) / unit + phase) >> 1) & 1) === 0 ? 1 : 0.35
        red = stripe * (spec.warm ? strong : weak)
        green = stripe * 0.5 * (strong + weak)
        blue = stripe * (spec.warm ? weak : strong)
      }
      into[at] = clamp(red + ((bits & 255) / 255 - 0.5) * noise)
      into[at + 1] = clamp(green + (((bits >>> 8) & 255) / 255 - 0.5) * noise)
      into[at + 2] = clamp(blue + (((bits >>> 16) & 255) / 255 - 0.5) * noise)
    }
  }
}

const clamp = (value: number) => Math.max(0, Math.min(255, Math.round(value)))

function drawSplit(seed: number, part: number, count: number, size: number): Split {
  const volume = size * size * 3
  const pixels = new Uint8Array(count * volume)
  const labels = new Int32Array(count)
  const random = new RandomStream(seed)
  for (let i = 0; i < count; i++) {
    labels[i] = i % specs.length
    random.rekey(seed, Purpose.syntheticData, part, i)
    draw(specs[labels[i]], size, random, pixels, i * volume)
  }
  return { count, pixels, labels }
}

/** Draws the synthetic data set: a pure function of its arguments. */
export function synthetic(seed: number, train: number, test: number, size: number, origin: string): Dataset {
  return makeDataset({
    name: 'synthetic',
    origin,
    classes: specs.map(nameOf),
    shape: [size, size, 3],
    train: drawSplit(seed, 0, train, size),
    test: drawSplit(seed, 1, test, size),
  })
}
