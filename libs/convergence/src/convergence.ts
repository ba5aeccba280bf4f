import { Blocks } from './blocks.ts'
import { mannKendall, median, noise, theilSen } from './trend.ts'
import { Window } from './window.ts'

/** Samples of the small window and of the large one. */
const SMALL = 1_000
const LARGE = 5_000
/** Windows before there is a verdict at all, and before a cost may be called flat. */
const FIRST = 10
const FLAT = 30
/** Blocks over which a fall is looked for, at least; the last third of the run where that is more. */
const STRETCH = 60
/** Windows in a row that must agree before a verdict changes. */
const AGREE = 3
/** One-sided 0.1 % of the standard normal distribution: the test is made again and again. */
const SIGNIFICANT = 3.09
/** The width of the band in which 95 % of the windows lie, in standard deviations of their noise. */
const BAND = 4
/** Windows whose median is the level of the cost. */
const LEVEL = 5
// Shares of the cost of guessing, so that they hold for any number of classes.
/** A change that is smaller matters to nobody, however sure it is. */
const LEAST = 0.005
/** A cost above this is that of guessing. */
const GUESSING = 0.97
/** A start is dead where every window was so close to guessing, and their band is so narrow. */
const DEAD = 0.01
/** A cost above this many times guessing, and the first batch's cost, has blown up. */
const BLOWN = 1.5

/**
 * What a cost curve says:
 * - `falling`: the training works.
 * - `noisy`: it falls, but windows of 1,000 samples hide that and only those of 5,000 show it.
 * - `converged`: flat, and better than guessing.
 * - `notLearning`: flat, or all but flat, at the cost of guessing: change the rate, the features or the model.
 * - `diverging`: it rises: lower the rate.
 * - `deadStart`: it never left the cost of guessing, for any image: the network answers all of them alike.
 */
export type Verdict = 'falling' | 'noisy' | 'converged' | 'notLearning' | 'diverging' | 'deadStart'

export interface Judgement {
  readonly verdict: Verdict
  /** Why, in a sentence with the figures. */
  readonly reason: string
}

/** The windowed costs after a step, in nats a sample, and the judgement where it has just changed. */
export interface Reading {
  readonly cost1000: number
  readonly cost5000: number
  readonly changed: Judgement | undefined
}

/**
 * The mean cost of always giving the classes' shares as probabilities, all alike: what is reached without looking at an
 * image, in nats. The entropy of one softmax over K classes, ln K, or of K sigmoids of which one in K is right.
 */
export function guessingCost(classes: number, head: 'softmax' | 'sigmoid'): number {
  const softmax = Math.log(classes)
  return head === 'softmax' ? softmax : softmax + (classes - 1) * Math.log(classes / (classes - 1))
}

/**
 * Reads a cost curve as it comes: the cost of each sample before its update, averaged over windows of samples, and a
 * verdict. Memory and time a step do not grow with the run.
 *
 * After each 1,000 samples the rules are asked in this order; all are relative to the noise of the curve itself, taken
 * from neighbouring windows, or to the cost of guessing, so that none of them knows a data set:
 * 1. The cost is not finite, or is 1.5 times guessing and its first value: `diverging`.
 * 2. The level (median of the last 5 windows) is above the best level by more than the band in which 95 % of the windows
 *    lie, or a cost that had blown up is back but no better than guessing: `diverging`.
 * 3. Over the last third of the run, and at least 60 windows, the cost falls by Mann and Kendall's test (0.1 %; such a fall is over
 *    three deviations of windows of 5,000 samples, and shows there): `falling` where it is more, by Theil and Sen's slope,
 *    than the band of windows of 1,000, else `noisy`. A fall at the cost of guessing counts only if it would leave that in
 *    as much time again.
 * 4. Else it is flat: `converged` below guessing; at guessing `deadStart` where no window was ever elsewhere and hardly
 *    any noise says that images are told apart, else `notLearning`.
 * A verdict changes when three windows in a row agree (rule 1: at once).
 */
export class Convergence {
  cost1000 = NaN
  cost5000 = NaN
  judgement: Judgement | undefined
  readonly #guessing: number
  readonly #small = new Window(SMALL)
  readonly #large = new Window(LARGE)
  readonly #blocks = new Blocks()
  /** The first step's cost, and the last step. */
  #first = NaN
  #last = 0
  /** The window that is being filled. */
  #sum = 0
  #samples = 0
  /** What the last windows said, while it differs from the judgement, and how many of them. */
  #next: Verdict | undefined
  #agreed = 0

  /** @param guessing Mean cost of answering every image alike, in nats; see `guessingCost`. */
  constructor(guessing: number) {
    this.#guessing = guessing
  }

  /**
   * Takes in a batch. A step that was there already takes back all from it on.
   *
   * @param loss Sum of the costs of its samples before its update, in nats.
   */
  add(step: number, loss: number, samples: number): Reading {
    const mean = loss / samples
    if (step <= this.#last) this.takeBack(step - 1)
    this.#last = step
    if (Number.isNaN(this.#first)) this.#first = mean
    this.cost1000 = this.#small.add(step, mean, samples)
    this.cost5000 = this.#large.add(step, mean, samples)
    this.#sum += loss
    this.#samples += samples
    const full = this.#samples >= SMALL
    if (full) {
      const window = this.#sum / this.#samples
      this.#blocks.add({ mean: window, samples: this.#samples, step, high: window })
      this.#sum = this.#samples = 0
    }
    const changed = this.#urgent(mean) ?? (full ? this.#confirm(this.#judge()) : undefined)
    return { cost1000: this.cost1000, cost5000: this.cost5000, changed }
  }

  /** Takes back what came after a step, as a run does that goes on from an earlier state. */
  takeBack(step: number): void {
    this.#blocks.takeBack(step)
    this.#sum = this.#samples = 0
    this.#last = step
    if (step === 0) this.#first = NaN
  }

  /** Takes another's judgement, such as that a gradient is not finite. Gives it back where it changes the verdict. */
  decide(judgement: Judgement): Judgement | undefined {
    this.#agreed = 0
    if (this.judgement?.verdict === judgement.verdict) return undefined
    this.judgement = judgement
    return judgement
  }

  /**
   * What a run that is over came to, where it was too short for a verdict: `notLearning` where five windows or more are there, and the
   * level is that of guessing. Gives it back where it is new.
   */
  end(): Judgement | undefined {
    const windows = this.#blocks.recent.slice(-LEVEL).map(({ mean }) => mean)
    if (this.judgement || windows.length < LEVEL || median(windows) < GUESSING * this.#guessing)
      return undefined
    const level = cost(median(windows))
    return this.decide({
      verdict: 'notLearning',
      reason: `The run is over, and its cost, ${level}, is no better than guessing (${cost(this.#guessing)}): train longer, or change the rate, the features or the model.`,
    })
  }

  /** What cannot wait. */
  #urgent(mean: number): Judgement | undefined {
    if (!Number.isFinite(mean)) return this.decide(diverging('The cost is not finite'))
    const window = this.#blocks.recent.at(-1)?.mean ?? 0
    return window > this.#blown
      ? this.decide(diverging(`The cost is ${cost(window)}, far above guessing (${cost(this.#guessing)})`))
      : undefined
  }

  get #blown(): number {
    return BLOWN * Math.max(this.#guessing, this.#first || 0)
  }

  #confirm(judgement: Judgement | undefined): Judgement | undefined {
    if (!judgement || judgement.verdict === this.judgement?.verdict) {
      this.#agreed = 0
      return undefined
    }
    this.#agreed = judgement.verdict === this.#next ? this.#agreed + 1 : 1
    this.#next = judgement.verdict
    return this.#agreed >= AGREE ? this.decide(judgement) : undefined
  }

  /** What the windows so far say; undefined while there are too few of them. */
  #judge(): Judgement | undefined {
    const { recent, all } = this.#blocks
    const guessing = this.#guessing
    if (recent.length < FIRST) return undefined
    const windows = recent.map(({ mean }) => mean)
    const band = BAND * noise(windows)
    const level = median(windows.slice(-LEVEL))
    const least = LEAST * guessing
    const high = level >= GUESSING * guessing

    const best = bestLevel([...all.map(({ mean }) => mean), ...windows])
    if (level - best > Math.max(band, least))
      return diverging(`The cost rose to ${cost(level)}, from ${cost(best)} at its best`)
    const peak = Math.max(...all.map((block) => block.high))
    if (high && peak > this.#blown)
      return diverging(
        `The cost blew up to ${cost(peak)} and is no better than guessing now (${cost(level)})`,
      )

    const stretch = all.slice(-Math.max(STRETCH, Math.ceil(all.length / 3)))
    const samples = stretch.reduce((sum, block) => sum + block.samples, 0)
    const means = stretch.map(({ mean }) => mean)
    const slope = mannKendall(means) < -SIGNIFICANT ? theilSen(means) : 0
    const fall = -slope * (stretch.length - 1)
    const over = `${grouped(samples)} samples`
    const enough = recent.length >= FLAT
    if (fall > least) {
      const by = `by ${cost(fall)} in the last ${over}, to ${cost(level)}`
      if (high && level + slope * all.length > GUESSING * guessing) {
        return enough
          ? {
              verdict: 'notLearning',
              reason: `The cost is that of guessing and falls too slowly to leave it (${by}): try a higher rate, other features or another model.`,
            }
          : undefined
      }
      if (fall > band || !enough) return { verdict: 'falling', reason: `The cost fell ${by}.` }
      const swing = `windows of 1,000 samples swing by ${cost(band)}; those of 5,000 show it`
      return {
        verdict: 'noisy',
        reason: `The cost fell ${by}, but ${swing}. A larger batch or a lower rate is steadier.`,
      }
    }
    if (!enough) return undefined
    const flat = `flat at ${cost(level)} for ${over}`
    if (!high) return { verdict: 'converged', reason: `The cost is ${flat}: more of the same will not help.` }
    const near = (mean: number) => Math.abs(mean - guessing) <= DEAD * guessing
    if (band < DEAD * guessing && all.every(({ mean, high }) => near(mean) && near(high))) {
      return {
        verdict: 'deadStart',
        reason: `The cost never left that of guessing, ${cost(guessing)}: the network answers all images alike. Try another seed, initialisation or rate.`,
      }
    }
    return {
      verdict: 'notLearning',
      reason: `The cost is ${flat}, no better than guessing (${cost(guessing)}): change the rate, the features or the model.`,
    }
  }
}

/** A verdict for people: `not learning`. */
export function verdictText(verdict: Verdict): string {
  return verdict.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)
}

function diverging(what: string): Judgement {
  return { verdict: 'diverging', reason: `${what}: lower the rate.` }
}

/** The lowest median of 5 values in a row, every fifth of them looked at. */
function bestLevel(means: readonly number[]): number {
  let best = Infinity
  for (let i = 0; i + LEVEL <= means.length; i += LEVEL)
    best = Math.min(best, median(means.slice(i, i + LEVEL)))
  return best
}

const cost = (value: number) => (Number.isFinite(value) ? String(Number(value.toPrecision(3))) : 'infinite')
const grouped = (n: number) => n.toLocaleString('en-US')
