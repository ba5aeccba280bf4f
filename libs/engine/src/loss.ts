import type { ModelSpec } from '@convoy/model'
import type { GradientResult } from './engine.ts'

/**
 * The heads: cross-entropy over a softmax, or over one sigmoid a class (summed over the classes), with the targets of the model's label
 * smoothing. In float64, on logits that are few.
 */

type Head = Pick<ModelSpec, 'head' | 'classes' | 'labelSmoothing'>
type Floats = Float32Array | Float64Array

/** The target of a sample's label, and that of every other class: 1 and 0 without label smoothing. */
export function targets({ head, classes, labelSmoothing = 0 }: Head): readonly [own: number, other: number] {
  const other = labelSmoothing / (head === 'sigmoid' ? 2 : classes)
  return [1 - labelSmoothing + other, other]
}

/**
 * Sums the loss over the samples and counts those whose largest logit (the first of equals) is their label's.
 *
 * @param logits [count, classes].
 * @param gradient Receives the gradient of the summed loss by the logits, [count, classes].
 * @param result Receives loss, in nats, and correct.
 */
export function crossEntropy(
  model: Head,
  logits: Floats,
  labels: Int32Array,
  count: number,
  gradient: Floats,
  result: GradientResult,
): GradientResult {
  const { head, classes } = model
  const [own, other] = targets(model)
  const loss = head === 'softmax' ? softmax : sigmoid
  result.loss = 0
  result.correct = 0
  for (let sample = 0; sample < count; sample++) {
    const start = sample * classes
    let best = start
    for (let i = start; i < start + classes; i++) if (logits[i] > logits[best]) best = i
    const label = start + labels[sample]
    if (best === label) result.correct++
    result.loss += loss(logits, start, start + classes, label, own, other, logits[best], gradient)
  }
  return result
}

/** One sample's loss, whose logits are [start, end), and the gradient by them. */
function softmax(
  logits: Floats,
  start: number,
  end: number,
  label: number,
  own: number,
  other: number,
  largest: number,
  gradient: Floats,
): number {
  let sum = 0
  for (let i = start; i < end; i++) sum += Math.exp(logits[i] - largest)
  let loss = Math.log(sum)
  for (let i = start; i < end; i++) {
    const target = i === label ? own : other
    gradient[i] = Math.exp(logits[i] - largest) / sum - target
    if (target > 0) loss -= target * (logits[i] - largest)
  }
  return loss
}

function sigmoid(
  logits: Floats,
  start: number,
  end: number,
  label: number,
  own: number,
  other: number,
  _largest: number,
  gradient: Floats,
): number {
  let loss = 0
  for (let i = start; i < end; i++) {
    const logit = logits[i]
    const target = i === label ? own : other
    // log(1 + e^x) - target·x, in the form that does not overflow.
    const small = Math.exp(-Math.abs(logit))
    loss += Math.max(logit, 0) + Math.log1p(small) - target * logit
    gradient[i] = (logit >= 0 ? 1 / (1 + small) : small / (1 + small)) - target
  }
  return loss
}
