/** The middle one of some values, or the mean of the middle two; NaN of none. The values are left as they are. */
export function median(values: ArrayLike<number>): number {
  const sorted = Float64Array.from(values).sort()
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2
}

/**
 * Mann and Kendall's score of a trend: how many pairs rise less how many fall, as a standard normal variable where there is no
 * trend; below 0 where the values fall. Only ranks count, so that outliers and the shape of the noise change little.
 *
 * H. B. Mann, Nonparametric tests against trend, Econometrica 13 (1945); M. G. Kendall, Rank Correlation Methods (1975),
 * whose normal approximation holds from 10 values on.
 */
export function mannKendall(values: readonly number[]): number {
  const n = values.length
  let score = 0
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) score += Math.sign(values[j] - values[i])
  }
  return (score - Math.sign(score)) / Math.sqrt((n * (n - 1) * (2 * n + 5)) / 18)
}

/**
 * Theil and Sen's slope: the median of the slopes of all pairs, in the values' unit for one of `at`.
 * P. K. Sen, Estimates of the regression coefficient based on Kendall's tau, JASA 63 (1968).
 *
 * @param values At least two.
 * @param at Where they are, increasing; without it 0, 1, 2, …
 */
export function theilSen(values: readonly number[], at?: readonly number[]): number {
  const n = values.length
  const slopes = new Float64Array((n * (n - 1)) / 2)
  let k = 0
  for (let i = 0; i < n; i++) {
    for (let j = i + 1; j < n; j++) slopes[k++] = (values[j] - values[i]) / (at ? at[j] - at[i] : j - i)
  }
  return median(slopes)
}

/**
 * Standard deviation of the noise on a curve, from the differences of neighbours, in which a slow trend all but vanishes
 * (J. von Neumann et al., The mean square successive difference, Ann. Math. Stat. 12, 1941). Differences beyond three
 * deviations, by the median absolute deviation (F. R. Hampel, JASA 69, 1974), are outliers and left out.
 */
export function noise(values: readonly number[]): number {
  const differences = values.slice(1).map((value, i) => value - values[i])
  const middle = median(differences)
  const distances = differences.map((one) => Math.abs(one - middle))
  // 1.4826 makes it the standard deviation of normal noise, 0.9733 gives back the variance that lies beyond three of them.
  const limit = 3 * 1.4826 * median(distances)
  const usual = distances.filter((distance) => distance <= limit)
  const variance = usual.reduce((sum, distance) => sum + distance ** 2, 0) / usual.length / 0.9733
  return Math.sqrt(variance / 2)
}
