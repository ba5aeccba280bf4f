import { initialise, type LayerSpec, type ModelSpec } from '@convoy/model'
import '@tensorflow/tfjs-backend-cpu'
import * as tf from '@tensorflow/tfjs-core'
import { beforeAll, describe, expect, it } from 'vitest'
import { Classifier } from './network.ts'

const convolve = (name: string, filters: number, stride: number): LayerSpec => ({
  kind: 'conv2d',
  name,
  filters,
  kernel: [3, 3],
  stride: [stride, stride],
  padding: 'same',
})
const SIDE = 8
const model: ModelSpec = {
  name: 'small',
  input: [SIDE, SIDE, 3],
  classes: 4,
  head: 'softmax',
  layers: [
    convolve('conv1', 6, 1),
    { kind: 'relu' },
    { kind: 'dropout', rate: 0.5 },
    convolve('conv2', 6, 2),
    { kind: 'relu' },
    { kind: 'averagePool', size: [3, 3], stride: [2, 2], padding: 'same' },
    convolve('conv3', 4, 1),
    { kind: 'globalAveragePool' },
  ],
}

describe('Classifier', () => {
  beforeAll(() => tf.setBackend('cpu'))

  it('gives as saliency what the differences of the logits give', () => {
    const deviation = [1, 0.5, 0.8]
    const classifier = new Classifier({
      model,
      parameters: initialise(model, 'heUniform', 3),
      preprocessing: { kind: 'channels', mean: [0.5, 0.4, 0.6], deviation },
    })
    const pixels = Uint8Array.from({ length: SIDE * SIDE * 3 }, (_, i) => 1 + ((i * 89 + 31) % 254))
    const logits = (change?: { at: number; by: number }): number[] => {
      const image = pixels.slice()
      if (change) image[change.at] += change.by
      classifier.classify(image)
      // The last layer's output: a picture of one pixel for each class.
      return [...classifier.maps(classifier.layers.length - 1).values]
    }
    const middle = logits()
    // Between two bends of its ReLUs the network is linear: a step of a whole byte is as good as a small one there.
    const differences = Array.from(pixels, (_, at) => {
      const step = 1 / 255 / deviation[at % 3]
      const [up, down] = [logits({ at, by: 1 }), logits({ at, by: -1 })]
      return middle.map((logit, label) => [(up[label] - logit) / step, (logit - down[label]) / step])
    })
    for (let label = 0; label < model.classes; label++) {
      logits()
      const { values, ...shape } = classifier.saliency(label)
      expect(shape).toEqual({ count: 1, height: SIDE, width: SIDE, channels: 1 })
      const scale = Math.max(...values)
      let straight = 0
      values.forEach((value, place) => {
        const slopes = [0, 1, 2].map((channel) => differences[3 * place + channel][label])
        if (slopes.some(([above, below]) => Math.abs(above - below) > 1e-3 * scale)) return
        straight++
        const largest = Math.max(...slopes.map(([above, below]) => Math.abs(above + below) / 2))
        expect(Math.abs(value - largest), `pixel ${place} of class ${label}`).toBeLessThan(1e-3 * scale)
      })
      expect(straight).toBeGreaterThan((SIDE * SIDE) / 2)
    }
    classifier.dispose()
  })
})
