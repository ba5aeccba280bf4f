import type { GradientResult } from './engine.ts'

/**
 * The heads: cross-entropy over a softmax, or over one sigmoid a class (summed over the classes, the label's target
 * being 1 and the others' 0). In float64, on logits that are few.
 */

/**
 * Sums the loss over the samples and counts those whose largest logit (the first of equals) is their label's.
 *
 * @param logits [count, classes].
 * @param gradient Receives the gradient of the summed loss by the logits, [count, classes].
 * @param result Receives loss, in nats, and correct.
 */
export function crossEntropy(
  head: 'softmax' | 'sigmoid',
  logits: Float32Array | Float64Array,
  labels: Int32Array,
  count: number,
  classes: number,
  gradient: Float32Array | Float64Array,
  result: GradientResult,
): GradientResult {
  result.loss = 0
  result.correct = 0
  for (let sample = 0; sample < count; sample++) {
    const start = sample * classes
    const label = labels[sample]
    let best = 0
    for (let c = 1; c < classes; c++) if (logits[start + c] > logits[start + best]) best = c
    if (best === label) result.correct++
    result.loss +=
      head === 'softmax'
        ? softmax(logits, start, classes, label, logits[start + best], gradient)
        : sigmoid(logits, start, classes, label, gradient)
  }
  return result
}

function softmax(
  logits: Float32Array | Float64Array,
  start: number,
  classes: number,
  label: number,
  largest: number,
  gradient: Float32Array | Float64Array,
): number {
  let sum = 0
  for (let i = start; i < start + classes; i++) sum += Math.exp(logits[i] - largest)
  for (let i = start; i < start + classes; i++) {
    gradient[i] = Math.exp(logits[i] - largest) / sum - (i === start + label ? 1 : 0)
  }
  return Math.log(sum) - (logits[start + label] - largest)
}

function sigmoid(
  logits: Float32Array | Float64Array,
  start: number,
  classes: number,
  label: number,
  gradient: Float32Array | Float64Array,
): number {
  let loss = 0
  for (let i = start; i < start + classes; i++) {
    const logit = logits[i]
    const target = i === start + label ? 1 : 0
    // log(1 + e^x) - target·x, in the form that does not overflow.
    const small = Math.exp(-Math.abs(logit))
    loss += Math.max(logit, 0) + Math.log1p(small) - target * logit
    gradient[i] = (logit >= 0 ? 1 / (1 + small) : small / (1 + small)) - target
  }
  return loss
}
