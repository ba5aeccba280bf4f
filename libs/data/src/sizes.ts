import { ConvoyError } from '@convoy/errors'
import type { PreprocessingName } from './whiten.ts'

/** Part of a run whose images have one size. */
export interface Stage {
  /** Height and width of the images, in pixels. */
  readonly size: number
  /** Of the run's steps, in millionths, so that where a stage ends is counted in whole numbers. */
  readonly share: number
}

const WHOLE = 1_000_000
/** The networks halve an image twice. */
const STEP = 4
/** As small as `--image-size` goes. */
const SMALLEST = 8

/**
 * Reads `--sizes`, such as `16:0.4,24:0.3,32`: 40 % of the steps at 16×16, 30 % at 24×24, the rest at 32×32. Sizes may
 * come in any order and again, but the last is the images' own, since that is what tests are at: a network that ends on
 * another does worse there (Touvron et al., "Fixing the train-test resolution discrepancy", 2019).
 *
 * @param shape Of the stored images.
 * Throws E_USAGE.
 */
export function parseSizes(
  text: string,
  [height, width]: readonly [height: number, width: number, channels: number],
  preprocessing: PreprocessingName,
): readonly Stage[] {
  const refuse = (why: string, remedy = `Give sizes and their shares of the run, as in 16:0.4,24:0.3,32.`) =>
    new ConvoyError('E_USAGE', `--sizes ${text} is not possible: ${why}`, remedy)
  if (height !== width) throw refuse(`the images are ${height}×${width}, not square`, 'Leave out --sizes.')
  const parts = text.split(',')
  let rest = WHOLE
  const stages = parts.map((part, i): Stage => {
    const [, digits, share] = /^\s*(\d{1,6})\s*(?::(.*))?$/.exec(part) ?? []
    if (digits === undefined) throw refuse(`“${part}” is no size`)
    const size = Number(digits)
    if (i === parts.length - 1) {
      if (share !== undefined) throw refuse('the last size has a share, but takes what the others leave')
      if (size !== height)
        throw refuse(`the last size must be ${height}, the images' own, which tests are at`)
      return { size, share: rest }
    }
    if (size > height) throw refuse(`${size} is larger than the images, which are ${height}×${height}`)
    if (size < SMALLEST || size % STEP !== 0)
      throw refuse(`${size} is no multiple of ${STEP} from ${SMALLEST} on`)
    if (!share?.trim()) throw refuse(`${size} has no share, which only the last size goes without`)
    const millionths = Number((/^\s*0?\.(\d{1,6})\s*$/.exec(share)?.[1] ?? '').padEnd(6, '0'))
    if (millionths === 0) throw refuse(`${share} is no share between 0 and 1, of six decimals at most`)
    rest -= millionths
    return { size, share: millionths }
  })
  if (rest <= 0) throw refuse(`the shares leave nothing to the last size`)
  if (preprocessing === 'zca' && stages.some(({ size }) => size < height)) {
    throw refuse(
      'ZCA whitens whole images, which cannot be made smaller afterwards',
      'Use --preprocessing channels or gcn, or leave out --sizes.',
    )
  }
  return stages
}

/** The first step that is not in the first `share` millionths of a run: ceil(share·totalSteps / 10^6), exactly. */
function firstAfter(share: number, totalSteps: number): number {
  const rest = totalSteps % WHOLE
  return share * ((totalSteps - rest) / WHOLE) + Math.ceil((share * rest) / WHOLE)
}

/**
 * The size of a step's images: that of the stage in which step / totalSteps lies. A stage has its share of the steps, less
 * than one more or fewer. In whole numbers, so the same in every process.
 *
 * @param step Updates done before it, from 0.
 */
export function sizeAt(stages: readonly Stage[], step: number, totalSteps: number): number {
  let share = 0
  for (const stage of stages) {
    share += stage.share
    if (step < firstAfter(share, totalSteps)) return stage.size
  }
  return stages.at(-1)!.size
}

/** Where a run's images get another size. */
export interface SizeChange {
  /** Updates done before the first step with it. */
  readonly from: number
  /** Height and width of the images, in pixels. */
  readonly size: number
}

/** The sizes of a run where they begin. The last is the full size, which stands there even if no step is left for it. */
export function sizeChanges(stages: readonly Stage[], totalSteps: number): SizeChange[] {
  const changes: SizeChange[] = []
  let share = 0
  let from = 0
  stages.forEach((stage, i) => {
    const to = firstAfter((share += stage.share), totalSteps)
    const has = to > from || i === stages.length - 1
    if (has && changes.at(-1)?.size !== stage.size) changes.push({ from, size: stage.size })
    from = to
  })
  return changes
}

/**
 * What a stretch of a run costs, in steps at full size: an image's cost goes with its area.
 *
 * @param changes Of the run; all is at full size where there are none.
 * @param from Updates done before it, `to` at its end.
 */
export function workBetween(changes: readonly SizeChange[] | undefined, from: number, to: number): number {
  if (!changes) return Math.max(0, to - from)
  const full = changes.at(-1)!.size
  let area = 0
  changes.forEach(({ from: begin, size }, i) => {
    const end = changes[i + 1]?.from ?? Infinity
    area += Math.max(0, Math.min(to, end) - Math.max(from, begin)) * size * size
  })
  return area / (full * full)
}

/** What a whole run costs, in epochs at full size. */
export function workOf(
  stages: readonly Stage[],
  { totalSteps, stepsPerEpoch }: { readonly totalSteps: number; readonly stepsPerEpoch: number },
): number {
  return workBetween(sizeChanges(stages, totalSteps), 0, totalSteps) / stepsPerEpoch
}

/** Leaves that a batch keeps, where it has as many at full size: what so many workers share evenly. */
const FEWEST_LEAVES = 4

/**
 * Samples of a leaf of smaller images: as many times more as fit into the area of a full one, so that it is still worth
 * sending, but at least four leaves a batch (or as many as there are at full size), so that a few workers still share it, and
 * no more than the batch. A function of the config alone, so that the tree of a step is the same whoever computes.
 *
 * @param size Height and width of the step's images, `full` that of the stored ones.
 * @param microBatch Samples of a leaf at full size.
 * @param batchSize Samples of a whole batch.
 */
export function leafAt(size: number, full: number, microBatch: number, batchSize: number): number {
  const fewest = Math.min(FEWEST_LEAVES, Math.ceil(batchSize / microBatch))
  let times = Math.floor((full * full) / (size * size))
  while (times > 1 && Math.ceil(batchSize / (times * microBatch)) < fewest) times--
  return Math.min(times * microBatch, Math.max(microBatch, batchSize))
}
