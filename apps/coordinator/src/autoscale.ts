import { median } from './pace.ts'

/** Steps that each median is over: enough to make little of jitter, few enough to follow a change within minutes. */
const REMEMBERED = 63
/** Numbers of workers that are remembered, the latest. */
const NUMBERS = 8
/** Steps at one number of workers before anything is made of them. */
const ENOUGH = 15
/** Another number is published when it has been further off than one worker for so many steps in a row. */
const PATIENCE = 30

/** What is measured of one step. Times in seconds. */
export interface StepTimes {
  /** Workers that computed. */
  readonly workers: number
  /** Leaves of the batch. */
  readonly leaves: number
  /** The whole step. */
  readonly seconds: number
  /** The engine's time of the worker that computed longest. */
  readonly computeSeconds: number
  /** The coordinator's own time, in which no worker has anything to do: the update. */
  readonly updateSeconds: number
}

/** A model of the step time: `update + wire + n·serial + ceil(leaves / n)·leaf`, in seconds. */
export interface StepModel {
  readonly leaves: number
  /** A worker's time for a leaf. */
  readonly leaf: number
  /** The coordinator's time that no number of workers changes. */
  readonly update: number
  /** Time on the links of workers, which are as many as they are. */
  readonly wire: number
  /** What each worker adds: its share of the coordinator's one link and one thread. */
  readonly serial: number
}

/** Seconds that a step of `workers` workers takes. */
export function stepSeconds({ leaves, leaf, update, wire, serial }: StepModel, workers: number): number {
  return update + wire + workers * serial + Math.ceil(leaves / workers) * leaf
}

/**
 * The number of workers up to which each one more shortens the step by the share `worth` of it, on average over the ones
 * that it takes: since leaves are whole, five workers may be no faster than four, and eight twice as fast. It is where
 * T(n) / (1 - worth)ⁿ is least.
 */
export function worthwhile(seconds: (workers: number) => number, worth: number, most: number): number {
  let best = 1
  let least = Infinity
  for (let n = 1; n <= most; n++) {
    const cost = Math.log(seconds(n)) - n * Math.log1p(-worth)
    if (cost < least - 1e-9) {
      least = cost
      best = n
    }
  }
  return best
}

/** How many workers a run is worth, from how long its steps take: the gauge `convoy_workers_wanted`. */
export class WorkersWanted {
  readonly #worth: number
  readonly #most: number
  #leaves = 0
  readonly #leaf: number[] = []
  readonly #update: number[] = []
  /** What is left of steps after computing and updating, by the number of workers; the latest number last. */
  readonly #rest = new Map<number, number[]>()
  #wanted: number | undefined
  #patience = 0

  /**
   * @param worth The share of a step that one more worker must save.
   * @param most The largest number that is ever wanted.
   */
  constructor(worth: number, most: number) {
    this.#worth = worth
    this.#most = most
  }

  /** The number of workers wanted; undefined until enough steps were measured. */
  get wanted(): number | undefined {
    return this.#wanted
  }

  /** The model that fits the steps so far; undefined until enough were measured. */
  get model(): StepModel | undefined {
    const points = [...this.#rest].filter(([, times]) => times.length >= ENOUGH)
    if (points.length === 0) return undefined
    const fit = line(points.map(([workers, times]) => [workers, Math.max(0, median(times))]))
    return { leaves: this.#leaves, leaf: median(this.#leaf), update: median(this.#update), ...fit }
  }

  /** Takes in one step. The smaller batch at the end of an epoch is passed over. */
  observe({ workers, leaves, seconds, computeSeconds, updateSeconds }: StepTimes): void {
    if (workers < 1 || leaves < 1) return
    if (leaves < this.#leaves) return
    this.#leaves = leaves
    remember(this.#leaf, computeSeconds / Math.ceil(leaves / workers))
    remember(this.#update, updateSeconds)
    const rest = this.#rest.get(workers) ?? []
    remember(rest, seconds - computeSeconds - updateSeconds)
    this.#rest.delete(workers)
    this.#rest.set(workers, rest)
    if (this.#rest.size > NUMBERS) this.#rest.delete(this.#rest.keys().next().value!)

    const { model } = this
    if (!model || rest.length < ENOUGH) return
    const best = worthwhile((n) => stepSeconds(model, n), this.#worth, this.#most)
    if (this.#wanted === undefined) this.#wanted = best
    else if (Math.abs(best - this.#wanted) <= 1) this.#patience = 0
    else if (++this.#patience >= PATIENCE) {
      this.#wanted = best
      this.#patience = 0
    }
  }
}

function remember(times: number[], time: number): void {
  times.push(time)
  if (times.length > REMEMBERED) times.shift()
}

/**
 * The line wire + serial·n through points [n, seconds] by least squares, neither part below 0. Of one point, all is taken
 * for wire: more workers will show what of it is not.
 */
function line(points: readonly (readonly [number, number])[]): { wire: number; serial: number } {
  const mean = (of: (point: readonly [number, number]) => number) =>
    points.reduce((sum, point) => sum + of(point), 0) / points.length
  const n = mean(([workers]) => workers)
  const seconds = mean(([, rest]) => rest)
  const spread = mean(([workers]) => (workers - n) ** 2)
  const slope = spread === 0 ? 0 : mean(([workers, rest]) => (workers - n) * (rest - seconds)) / spread
  const serial = Math.min(Math.max(0, slope), seconds / n)
  return { wire: seconds - serial * n, serial }
}
