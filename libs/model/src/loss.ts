import type { ModelSpec } from './spec.ts'

/**
 * The cost of one sample in nats, from its logits, in float64: that of a test, which knows no label smoothing.
 *
 * Softmax: -log softmax(z)[label]. Sigmoid: the sum over the classes of the binary cross-entropy against the one-hot
 * label, in the form that cannot overflow: max(z, 0) - z·y + log(1 + exp(-|z|)) (TensorFlow's
 * sigmoid_cross_entropy_with_logits).
 *
 * @param logits [n, classes] flat.
 * @param at Where the sample's logits start.
 */
export function crossEntropy(
  head: ModelSpec['head'],
  logits: ArrayLike<number>,
  at: number,
  classes: number,
  label: number,
): number {
  if (head === 'sigmoid') {
    let sum = 0
    for (let k = 0; k < classes; k++) {
      const z = logits[at + k]
      sum += Math.max(z, 0) - (k === label ? z : 0) + Math.log1p(Math.exp(-Math.abs(z)))
    }
    return sum
  }
  let largest = -Infinity
  for (let k = 0; k < classes; k++) largest = Math.max(largest, logits[at + k])
  let sum = 0
  for (let k = 0; k < classes; k++) sum += Math.exp(logits[at + k] - largest)
  return Math.log(sum) + largest - logits[at + label]
}

/** The class with the largest logit; the first of equals. */
export function argmax(logits: ArrayLike<number>, at: number, classes: number): number {
  let best = 0
  for (let k = 1; k < classes; k++) if (logits[at + k] > logits[at + best]) best = k
  return best
}

/** Class probabilities from one sample's logits, in float64: softmax, or the logistic function of each. */
export function probabilities(
  head: ModelSpec['head'],
  logits: ArrayLike<number>,
  at: number,
  classes: number,
): number[] {
  const z = Array.from({ length: classes }, (_, k) => logits[at + k])
  if (head === 'sigmoid') return z.map((value) => 1 / (1 + Math.exp(-value)))
  const largest = Math.max(...z)
  const powers = z.map((value) => Math.exp(value - largest))
  const sum = powers.reduce((a, b) => a + b, 0)
  return powers.map((power) => power / sum)
}
