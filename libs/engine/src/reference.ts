import {
  inputShapes,
  outputShapes,
  parameterLayout,
  slides,
  volume,
  windowOf,
  type ModelSpec,
  type ParameterView,
  type Shape,
} from '@convoy/model'
import { Purpose, RandomStream } from '@convoy/random'
import type { DropoutMasks, LabelledImages } from './engine.ts'
import { crossEntropy } from './loss.ts'

/**
 * A model's gradient in float64 by plain loops: what the tests hold an engine against. It shares no code with the
 * engine but the head.
 */

type Layer = ModelSpec['layers'][number]
type Windowed = Extract<Layer, { stride: unknown }> | { readonly kind: 'globalAveragePool' }
type Pooling = Exclude<Windowed, { kind: 'conv2d' }>

/** Calls `visit(output position, input position, kernel position)` for all that lie inside the image. */
function* windows(layer: Windowed, input: readonly number[]): Generator<[number, number, number]> {
  const [height, width] = input
  const window = windowOf(layer, input)
  const { size, stride } = window
  const [rows, columns] = slides(input, window)
  for (let oy = 0; oy < rows.output; oy++) {
    for (let ox = 0; ox < columns.output; ox++) {
      for (let ky = 0; ky < size[0]; ky++) {
        for (let kx = 0; kx < size[1]; kx++) {
          const iy = oy * stride[0] + ky - rows.before
          const ix = ox * stride[1] + kx - columns.before
          if (iy < 0 || ix < 0 || iy >= height || ix >= width) continue
          yield [oy * columns.output + ox, iy * width + ix, ky * size[1] + kx]
        }
      }
    }
  }
}

/** A layer's output for one sample, and what pulls the gradient of that back to its input. */
interface Pass {
  readonly y: Float64Array
  readonly back: (dy: Float64Array) => Float64Array
}

/**
 * @param shape Of the input.
 * @param volume Of the output.
 * @param gradient Receives the kernel's and the bias's, added to what is there, when the pass goes back.
 */
function convolve(
  layer: Extract<Layer, { kind: 'conv2d' }>,
  shape: Shape,
  x: Float64Array,
  volume: number,
  parameters: ArrayLike<number>,
  [kernel, bias]: readonly ParameterView[],
  gradient: Float64Array,
): Pass {
  const channels = shape[2]
  const n = layer.filters
  const y = Float64Array.from({ length: volume }, (_, i) => parameters[bias.offset + (i % n)])
  for (const [o, i, k] of windows(layer, shape)) {
    for (let c = 0; c < channels; c++) {
      const value = x[i * channels + c]
      const w = kernel.offset + (k * channels + c) * n
      for (let f = 0; f < n; f++) y[o * n + f] += value * parameters[w + f]
    }
  }
  const back = (dy: Float64Array) => {
    const dx = new Float64Array(x.length)
    for (let i = 0; i < y.length; i++) gradient[bias.offset + (i % n)] += dy[i]
    for (const [o, i, k] of windows(layer, shape)) {
      for (let c = 0; c < channels; c++) {
        const value = x[i * channels + c]
        const w = kernel.offset + (k * channels + c) * n
        let sum = 0
        for (let f = 0; f < n; f++) {
          const d = dy[o * n + f]
          sum += d * parameters[w + f]
          gradient[w + f] += d * value
        }
        dx[i * channels + c] += sum
      }
    }
    return dx
  }
  return { y, back }
}

function pool(layer: Pooling, shape: Shape, x: Float64Array, volume: number): Pass {
  const channels = shape[2]
  const y = new Float64Array(volume)
  /** Where each maximum was found. */
  const taken = new Int32Array(volume).fill(-1)
  const counts = new Float64Array(volume)
  if (layer.kind === 'maxPool') y.fill(-Infinity)
  for (const [o, i] of windows(layer, shape)) {
    for (let c = 0; c < channels; c++) {
      const to = o * channels + c
      const value = x[i * channels + c]
      counts[to]++
      if (layer.kind !== 'maxPool') y[to] += value
      else if (value > y[to]) {
        y[to] = value
        taken[to] = i * channels + c
      }
    }
  }
  const average = layer.kind === 'averagePool' || layer.kind === 'globalAveragePool'
  if (average) y.forEach((v, i) => (y[i] = v / counts[i]))
  const back = (dy: Float64Array) => {
    const dx = new Float64Array(x.length)
    if (layer.kind === 'maxPool') taken.forEach((i, o) => (dx[i] += dy[o]))
    else {
      for (const [o, i] of windows(layer, shape)) {
        for (let c = 0; c < channels; c++) {
          const d = dy[o * channels + c]
          dx[i * channels + c] += average ? d / counts[o * channels + c] : d
        }
      }
    }
    return dx
  }
  return { y, back }
}

/** @param mask Of the whole leaf; undefined where dropout is off. */
function drop(rate: number, x: Float64Array, mask: Uint8Array | undefined, sample: number): Pass {
  const scale = 1 / (1 - rate)
  const kept = (v: number, i: number) => (mask ? v * mask[sample * x.length + i] * scale : v)
  return { y: x.map(kept), back: (dy) => dy.map(kept) }
}

/** The summed loss, its flat gradient and the logits. */
export function referenceGradient(
  model: ModelSpec,
  parameters: ArrayLike<number>,
  batch: LabelledImages,
  masks: DropoutMasks | undefined,
): { loss: number; correct: number; gradient: Float64Array; logits: Float64Array } {
  const { views, size } = parameterLayout(model)
  const inputs = inputShapes(model)
  const outputs = outputShapes(model)
  const gradient = new Float64Array(size)
  const logits = new Float64Array(batch.count * model.classes)
  const totals = { loss: 0, correct: 0 }

  for (let sample = 0; sample < batch.count; sample++) {
    const pixels = volume(model.input)
    let x: Float64Array = Float64Array.from(batch.images.subarray(sample * pixels, (sample + 1) * pixels))
    let dropouts = 0
    const pass = (layer: Layer, index: number): Pass => {
      const size = volume(outputs[index])
      switch (layer.kind) {
        case 'conv2d': {
          const own = views.filter((view) => view.layer === index)
          return convolve(layer, inputs[index], x, size, parameters, own, gradient)
        }
        case 'relu': {
          const input = x
          return {
            y: input.map((v) => Math.max(0, v)),
            back: (dy) => dy.map((d, i) => (input[i] > 0 ? d : 0)),
          }
        }
        case 'dropout':
          return drop(layer.rate, x, masks?.values[dropouts++], sample)
        default:
          return pool(layer, inputs[index], x, size)
      }
    }
    const passes = model.layers.map((layer, index) => {
      const passed = pass(layer, index)
      x = passed.y
      return passed
    })

    logits.set(x, sample * model.classes)
    let dy: Float64Array = new Float64Array(model.classes)
    const labels = batch.labels.subarray(sample, sample + 1)
    const result = crossEntropy(model, x, labels, 1, dy, { loss: 0, correct: 0 })
    totals.loss += result.loss
    totals.correct += result.correct
    for (const { back } of passes.reverse()) dy = back(dy)
  }
  return { ...totals, gradient, logits }
}

/**
 * A random leaf: He-initialised parameters with small biases, noise for images, and masks at the layers' rates.
 *
 * @param seed Draws differ by it.
 */
export function drawLeaf(
  model: ModelSpec,
  count: number,
  seed: number,
): { parameters: Float32Array; batch: LabelledImages; masks: DropoutMasks } {
  const random = new RandomStream(seed, Purpose.syntheticData)
  const { size, views } = parameterLayout(model)
  const parameters = new Float32Array(size)
  for (const { role, shape, offset, size: elements } of views) {
    const fan = shape[0] * (shape[1] ?? 1) * (shape[2] ?? 1)
    const scale = role === 'kernel' ? 2 * Math.sqrt(6 / fan) : 0.1
    for (let i = 0; i < elements; i++) parameters[offset + i] = (random.uniform() - 0.5) * scale
  }
  const images = new Float32Array(count * volume(model.input))
  for (let i = 0; i < images.length; i++) images[i] = (random.uniform() - 0.5) * 3.4
  const labels = new Int32Array(count)
  for (let i = 0; i < count; i++) labels[i] = random.below(model.classes)
  const shapes = inputShapes(model)
  const values = model.layers.flatMap((layer, index) => {
    if (layer.kind !== 'dropout') return []
    const mask = new Uint8Array(count * volume(shapes[index]))
    for (let i = 0; i < mask.length; i++) mask[i] = random.uniform() < layer.rate ? 0 : 1
    return [mask]
  })
  return { parameters, batch: { count, images, labels }, masks: { values } }
}

/** How far `a` is from `b`: ‖a - b‖ / ‖b‖, and the sums of a - b and of |a - b|. */
export function differences(
  a: ArrayLike<number>,
  b: ArrayLike<number>,
): { relative: number; signed: number; absolute: number } {
  let square = 0
  let norm = 0
  let signed = 0
  let absolute = 0
  for (let i = 0; i < b.length; i++) {
    const difference = a[i] - b[i]
    square += difference ** 2
    norm += b[i] ** 2
    signed += difference
    absolute += Math.abs(difference)
  }
  return { relative: Math.sqrt(square / norm), signed, absolute }
}
