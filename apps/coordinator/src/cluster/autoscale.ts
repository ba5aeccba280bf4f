import { median } from './pace.ts'

/** Steps that each median is over: enough to make little of jitter, few enough to follow a change within minutes. */
const REMEMBERED = 63
/** Numbers of workers that are remembered, the latest. */
const NUMBERS = 8
/** Steps at one number of workers before anything is made of them. */
const ENOUGH = 15
/** Another number is published when it has been further off than one worker for so many steps in a row: no time in them is old. */
const PATIENCE = 2 * REMEMBERED

/** Values of `serial` that are tried in a fit. */
const TRIED = 200

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

/**
 * A model of the step time. All workers get their parameters over the coordinator's one link, compute
 * `ceil(leaves / n)` leaves or one less, and give their gradients back over that link, one after the other: those with
 * a leaf less are heard while the others compute their last.
 */
export interface StepModel {
  readonly leaves: number
  /** A worker's time for a leaf, in seconds, as are all that follow. */
  readonly leaf: number
  /** The coordinator's time that no number of workers changes. */
  readonly update: number
  /** Time on the links of workers, which are as many as they are. */
  readonly wire: number
  /** What each worker adds, each way: its share of the coordinator's one link and one thread. */
  readonly serial: number
}

/** Seconds that a step of `workers` workers takes. */
export function stepSeconds(model: StepModel, workers: number): number {
  const { leaves, leaf, update, wire, serial } = model
  return update + wire + serial * turns(leaves, workers, leaf / serial) + Math.ceil(leaves / workers) * leaf
}

/**
 * How many times the coordinator's link is used in a step while nothing else goes on: for the parameters of all workers,
 * for the gradients that come last, and for what is still left then of those that came a leaf earlier.
 *
 * @param leaf Gradients that come back in a leaf's time.
 */
function turns(leaves: number, workers: number, leaf: number): number {
  const computing = Math.min(leaves, workers)
  const last = leaves % computing || computing
  return computing + last + Math.max(0, computing - last - leaf)
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
    const leaves = this.#leaves
    const leaf = median(this.#leaf)
    const rests = points.map(([workers, times]) => [workers, Math.max(0, median(times))] as const)
    const fixed = { leaves, leaf, update: median(this.#update) }
    const [[workers, rest]] = rests
    if (rests.length > 1) return { ...fixed, ...fit(leaves, leaf, rests) }
    // Of one number alone it can't be told what more or fewer change. Taken is what has another number tried.
    const same = { ...fixed, wire: rest, serial: 0 }
    if (this.#best(same) > workers + 1) return same
    return { ...fixed, wire: 0, serial: rest / turns(leaves, workers, Infinity) }
  }

  #best(model: StepModel): number {
    return worthwhile((n) => stepSeconds(model, n), this.#worth, this.#most)
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
    const best = this.#best(model)
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

/** wire and serial, neither below 0, with which `wire + serial·turns` comes nearest to [workers, seconds], by least squares. */
function fit(
  leaves: number,
  leaf: number,
  rests: readonly (readonly [number, number])[],
): { wire: number; serial: number } {
  const most = Math.max(...rests.map(([workers, rest]) => rest / turns(leaves, workers, Infinity)))
  let best = { wire: 0, serial: 0 }
  let least = Infinity
  for (let i = 0; i <= TRIED; i++) {
    // Closer to each other where they are small.
    const serial = (i / TRIED) ** 2 * most
    let sum = 0
    let squares = 0
    for (const [workers, rest] of rests) {
      const left = rest - serial * turns(leaves, workers, leaf / serial)
      sum += left
      squares += left * left
    }
    const wire = Math.max(0, sum / rests.length)
    const error = squares - 2 * wire * sum + rests.length * wire * wire
    if (error < least) {
      least = error
      best = { wire, serial }
    }
  }
  return best
}
