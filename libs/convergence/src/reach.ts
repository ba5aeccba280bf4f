import { median, theilSen } from './trend.ts'

/** Tests that are extrapolated from, the newest. */
const TESTS = 8

/**
 * When a test accuracy is likely to be reached, from the tests so far: the error falls about as a power of the time, as
 * learning curves do (J. Hestness et al., Deep learning scaling is predictable, empirically, arXiv 1712.00409), which is a line
 * over logarithms, laid by Theil and Sen.
 *
 * @param tests In order of epoch, each after at least one.
 * @param accuracy A share of 1.
 * @returns Epochs from the beginning; undefined where fewer than three tests, or tests that get no better, do not say.
 */
export function epochOfAccuracy(
  tests: readonly { epoch: number; accuracy: number }[],
  accuracy: number,
): number | undefined {
  // An error of 0 has no logarithm; half of a per mille stands for it.
  const error = (share: number) => Math.log(Math.max(1 - share, 0.0005))
  const points = tests.slice(-TESTS).map((test) => [Math.log(test.epoch), error(test.accuracy)] as const)
  if (points.length < 3) return undefined
  const slope = theilSen(
    points.map(([, y]) => y),
    points.map(([x]) => x),
  )
  if (!(slope < 0)) return undefined
  const offset = median(points.map(([x, y]) => y - slope * x))
  const epoch = Math.exp((error(accuracy) - offset) / slope)
  // It is not reached yet.
  return Math.max(epoch, tests.at(-1)!.epoch)
}
