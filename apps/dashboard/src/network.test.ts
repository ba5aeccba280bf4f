import { buildModel, initialise } from '@convoy/model'
import '@tensorflow/tfjs-backend-cpu'
import * as tf from '@tensorflow/tfjs-core'
import { expect, it } from 'vitest'
import { Classifier } from './network.ts'

it('saliency is the largest change of a logit by a channel of each pixel, as finite differences have it', async () => {
  tf.enableProdMode()
  await tf.setBackend('cpu')
  const model = buildModel('all-cnn-c', { input: [16, 16, 3], classes: 4, width: 0.125, head: 'sigmoid' })
  const deviation = [0.25, 0.3, 0.2]
  const classifier = new Classifier({
    model,
    parameters: initialise(model, 'heUniform', 7),
    preprocessing: { kind: 'channels', mean: [0.5, 0.4, 0.6], deviation },
  })
  const pixels = Uint8Array.from({ length: 16 * 16 * 3 }, (_, i) => 128 + 100 * Math.sin(i * i))
  const label = 2
  // A sigmoid's probability tells its logit.
  const logit = (at: number, by: number) => {
    const changed = pixels.slice()
    changed[at] += by
    const p = classifier.classify(changed)[label]
    return Math.log(p / (1 - p))
  }
  classifier.classify(pixels)
  const { values, height, width, channels } = classifier.saliency(label)
  expect([height, width, channels, values.length]).toEqual([16, 16, 1, 256])
  const errors: number[] = []
  for (let pixel = 0; pixel < 256; pixel += 5) {
    const slopes = deviation.map((one, channel) => {
      const at = 3 * pixel + channel
      return Math.abs(logit(at, 1) - logit(at, -1)) / (2 / 255 / one)
    })
    errors.push(Math.abs(values[pixel] - Math.max(...slopes)))
  }
  const largest = Math.max(...values)
  // Where a ReLU turns within the difference, that is off by a little.
  expect(errors.sort((a, b) => a - b)[errors.length >> 1]).toBeLessThan(0.01 * largest)
  expect(errors.at(-1)).toBeLessThan(0.1 * largest)
  expect(largest).toBeGreaterThan(0.01)
  classifier.dispose()
})
