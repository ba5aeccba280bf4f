import { RandomStream } from '@convoy/random'
import { describe, expect, it } from 'vitest'
import recorded from './real-runs.json' with { type: 'json' }
import { Convergence, guessingCost, type Verdict } from './convergence.ts'

/** A cost curve: `at(x)` is the true cost at the share x of the run, `deviation` that of one sample around it. */
interface Curve {
  guessing: number
  batch: number
  /** Windows of at least 1,000 samples. */
  windows: number
  at: (x: number) => number
  deviation: number
}

/** Draws what a test needs. */
class Draw {
  readonly #stream: RandomStream
  constructor(...key: [number, ...number[]]) {
    this.#stream = new RandomStream(...key)
  }
  uniform(lo = 0, hi = 1): number {
    return lo + (hi - lo) * this.#stream.uniform()
  }
  /** Uniform in the logarithm: a scale. */
  scale(lo: number, hi: number): number {
    return Math.exp(this.uniform(Math.log(lo), Math.log(hi)))
  }
  of<T>(values: readonly T[]): T {
    return values[this.#stream.below(values.length)]
  }
  normal(): number {
    return Math.sqrt(-2 * Math.log(1 - this.uniform())) * Math.cos(2 * Math.PI * this.uniform())
  }
}

/** Noise of mean 0 and deviation 1, of one shape or another; some have outliers. */
const noises: readonly ((draw: Draw) => number)[] = [
  (draw) => draw.normal(),
  (draw) => draw.uniform(-1, 1) * Math.sqrt(3),
  // Skewed, as costs are: most samples cost little, a few much.
  (draw) => -Math.log(1 - draw.uniform()) - 1,
  (draw) => draw.normal() + (draw.uniform() < 0.005 ? draw.uniform(-8, 8) : 0),
]

/** Shapes that fall from 1 at 0 to 0 at 1. */
const falls: readonly ((draw: Draw) => (x: number) => number)[] = [
  () => (x) => 1 - x,
  (draw) => {
    const rate = draw.uniform(0.5, 3)
    return (x) => (Math.exp(-rate * x) - Math.exp(-rate)) / (1 - Math.exp(-rate))
  },
  (draw) => {
    const power = draw.uniform(0.3, 1)
    return (x) => ((1 + 20 * x) ** -power - 21 ** -power) / (1 - 21 ** -power)
  },
  // Nothing for a while, then it starts.
  (draw) => {
    const begin = draw.uniform(0.1, 0.4)
    return (x) => 1 - Math.max(0, (x - begin) / (1 - begin))
  },
]

/** What all kinds share. */
function frame(draw: Draw, least: number, most: number) {
  return {
    guessing: Math.log(Math.round(draw.scale(2, 1000))),
    batch: draw.of([20, 50, 64, 128, 500, 2000]),
    windows: Math.round(draw.scale(least, most)),
  }
}
/** Samples in a window of a run with this batch. */
const size = (batch: number) => Math.ceil(1000 / batch) * batch
/** The deviation of one sample that puts 95 % of the windows into a band of this width. */
const deviationOf = (band: number, batch: number) => (band / 4) * Math.sqrt(size(batch))
/** By how much a curve falls over the stretch that is judged: a third of the run, at least 60 windows. */
function lateFall(at: (x: number) => number, windows: number): number {
  const begin = Math.max(0, 1 - Math.max(60 / windows, 1 / 3))
  return at(begin) - at(1)
}

const kinds: Record<Verdict, (draw: Draw) => Curve> = {
  // By more than the band of the small window.
  falling(draw) {
    const { guessing, ...rest } = frame(draw, 20, 200)
    const shape = draw.of(falls)(draw)
    const from = guessing * draw.uniform(0.5, 1.1)
    const to = from * draw.uniform(0.05, 0.85)
    const at = (x: number) => to + (from - to) * shape(x)
    const band = Math.min(lateFall(at, rest.windows) * draw.uniform(0.1, 0.65), 0.2 * guessing)
    return { guessing, ...rest, at, deviation: deviationOf(band, rest.batch) }
  },
  // By less than the band of the small window, and more than that of the large one.
  noisy(draw) {
    const { guessing, ...rest } = frame(draw, 64, 200)
    const shape = draw.of(falls.slice(0, 3))(draw)
    const fall = guessing * draw.scale(0.012, 0.05)
    const height = fall / lateFall(shape, rest.windows)
    const to = guessing * draw.uniform(0.1, 0.8)
    const band = fall / draw.uniform(0.5, 0.75)
    return { guessing, ...rest, at: (x) => to + height * shape(x), deviation: deviationOf(band, rest.batch) }
  },
  // It fell in the first part of the run, to less than guessing, and then no more.
  converged(draw) {
    const { guessing, ...rest } = frame(draw, 90, 300)
    const from = guessing * draw.uniform(0.9, 1.1)
    const to = guessing * draw.uniform(0.02, 0.85)
    const end = draw.uniform(0.05, 0.3)
    const at = (x: number) => to + (from - to) * Math.exp((-6 * x) / end)
    return { guessing, ...rest, at, deviation: deviationOf(guessing * draw.scale(0.005, 0.08), rest.batch) }
  },
  // At guessing or a little above, from the beginning or after a fall from above; images are told apart, to no use.
  notLearning(draw) {
    const { guessing, ...rest } = frame(draw, 50, 300)
    const from = guessing * draw.uniform(1, 1.3)
    const to = guessing * draw.uniform(0.99, 1.05)
    const end = draw.uniform(0.05, 0.3)
    const at = (x: number) => to + Math.max(0, from - to) * Math.exp((-6 * x) / end)
    return { guessing, ...rest, at, deviation: deviationOf(guessing * draw.scale(0.02, 0.08), rest.batch) }
  },
  // It learned for a while and then rises, slowly or in a jump; or it blows up.
  diverging(draw) {
    const { guessing, ...rest } = frame(draw, 25, 200)
    const low = guessing * draw.uniform(0.2, 0.8)
    const turn = draw.uniform(0.3, 0.7)
    const rise = guessing * draw.scale(0.15, 20)
    const steep = draw.of([0, 1, 2])
    const at = (x: number) =>
      x < turn
        ? low + (guessing - low) * (1 - x / turn)
        : low + rise * (steep === 0 ? 1 : ((x - turn) / (1 - turn)) ** steep)
    const band = Math.min(rise * draw.uniform(0.05, 0.6), 0.15 * guessing)
    return { guessing, ...rest, at, deviation: deviationOf(band, rest.batch) }
  },
  // Exactly guessing, but for the classes' shares in a batch.
  deadStart(draw) {
    const { guessing, ...rest } = frame(draw, 40, 300)
    return {
      guessing,
      ...rest,
      at: () => guessing,
      deviation: deviationOf(guessing * draw.scale(1e-5, 0.004), rest.batch),
    }
  },
}

function judge({ guessing, batch, windows, at, deviation }: Curve, draw: Draw): Convergence {
  const convergence = new Convergence(guessing)
  const noise = draw.of(noises)
  const steps = windows * Math.ceil(1000 / batch)
  for (let step = 1; step <= steps; step++) {
    const mean = Math.max(0, at(step / steps) + (deviation / Math.sqrt(batch)) * noise(draw))
    convergence.add(step, mean * batch, batch)
  }
  return convergence
}

describe('Convergence', () => {
  it.each(Object.entries(kinds))('%s is found in 200 curves, at least 95 % of them', (verdict, draw) => {
    const wrong: string[] = []
    for (let seed = 1; seed <= 200; seed++) {
      const numbers = new Draw(seed, verdict.length)
      const curve = draw(numbers)
      const { judgement } = judge(curve, numbers)
      if (judgement?.verdict !== verdict)
        wrong.push(`seed ${seed}: ${judgement?.verdict}: ${judgement?.reason} ${JSON.stringify(curve)}`)
    }
    expect(wrong.length, wrong.slice(0, 3).join('\n')).toBeLessThanOrEqual(10)
  })
})

/** Feeds windows of 1,000 samples. */
function feed(convergence: Convergence, costs: readonly number[], from = 1): (string | undefined)[] {
  return costs.map((mean, i) => convergence.add(from + i, 1000 * mean, 1000).changed?.verdict)
}
const falling = Array.from({ length: 20 }, (_, i) => 2.3 - 0.05 * i)

describe('what a run does besides', () => {
  it('says a change once, when three windows agree', () => {
    const said = feed(new Convergence(2.3), falling)
    expect(said.filter(Boolean)).toEqual(['falling'])
    expect(said[11]).toBe('falling')
  })

  it('says at once that a cost is not finite', () => {
    const convergence = new Convergence(2.3)
    feed(convergence, falling)
    expect(convergence.add(21, NaN, 1).changed).toEqual({
      verdict: 'diverging',
      reason: 'The cost is not finite: lower the rate.',
    })
  })

  it('forgets what a run takes back, and what it does again', () => {
    const convergence = new Convergence(2.3)
    feed(convergence, [...falling, NaN])
    convergence.takeBack(20)
    expect(feed(convergence, [1.3, 1.25, 1.2], 21).filter(Boolean)).toEqual(['falling'])
    expect(convergence.cost1000).toBe(1.2)
    // From step 2 on once more, without a takeBack: that would be a leap upwards.
    expect(feed(convergence, falling.slice(1), 2).filter(Boolean)).toEqual([])
  })

  it('says at the end of a run that was too short for a verdict whether it is no better than guessing', () => {
    const end = (costs: readonly number[]) => {
      const convergence = new Convergence(2.3)
      feed(convergence, costs)
      return convergence.end()
    }
    const flat = [2.52, 2.52, 2.51, 2.52, 2.52]
    expect(end(flat)).toEqual({
      verdict: 'notLearning',
      reason:
        'The run is over, and its cost, 2.52, is no better than guessing (2.3): train longer, or change the rate, the features or the model.',
    })
    expect(end(flat.slice(1))).toBeUndefined()
    expect(end([2.5, 2.4, 2.2, 2.1, 2.0])).toBeUndefined()
    // It has its verdict.
    expect(end(falling)).toBeUndefined()
  })

  it('averages over 1,000 and 5,000 samples', () => {
    const convergence = new Convergence(2.3)
    feed(convergence, [6, 5, 4, 3, 2, 1])
    expect(convergence).toMatchObject({ cost1000: 1, cost5000: 3 })
  })
})

describe('real runs', () => {
  it.each([
    ['healthy', ['falling']],
    ['hot', ['diverging']],
    ['hot, clipped', ['notLearning']],
    // It is far from guessing at first, and comes down to it.
    ['cold', ['falling', 'notLearning']],
    ['zeros', ['deadStart']],
  ] as const)('%s: %j', (name, verdicts) => {
    const { steps, costs } = recorded.runs[name]
    const convergence = new Convergence(guessingCost(10, 'softmax'))
    const said = costs.flatMap((mean: number | null, i: number) => {
      const { changed } = convergence.add(i + 1, (mean ?? NaN) * 50 * steps, 50 * steps)
      return changed ? [changed.verdict] : []
    })
    expect(said).toEqual(verdicts)
  })
})

describe('guessingCost', () => {
  it('is the entropy of the classes', () => {
    expect(guessingCost(10, 'softmax')).toBeCloseTo(2.302585, 6)
    expect(guessingCost(10, 'sigmoid')).toBeCloseTo(3.25083, 6)
  })
})
