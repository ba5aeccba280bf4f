import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { makeDataset, type Dataset } from './dataset.ts'
import { holdOut } from './hold-out.ts'

/** Images of one pixel, which tell samples apart. */
function datasetOf(labels: readonly number[], float = false): Dataset {
  const numbers = Uint8Array.from({ length: 3 * labels.length }, (_, i) => [i / 3, i / 768, 7][i % 3])
  const pixels = float ? Float32Array.from(numbers) : numbers
  const train = { count: labels.length, labels: Int32Array.from(labels), pixels }
  const test = { count: 1, labels: Int32Array.of(0), pixels: float ? new Float32Array(3) : new Uint8Array(3) }
  const classes = Array.from({ length: Math.max(...labels) + 1 }, (_, i) => `class ${i}`)
  return makeDataset({ name: 'numbers', origin: 'here', classes, shape: [1, 1, 3], train, test })
}

const samplesOf = ({ pixels, labels }: Dataset['train']) =>
  Array.from(labels, (label, i) => ({ sample: pixels[3 * i] + 256 * pixels[3 * i + 1], label }))

/** Labels of classes of several sizes, in any order, and how many of them may be held out. */
const cases = fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 8 }).chain((sizes) => {
  const labels = sizes.flatMap((size, label) => new Array<number>(size).fill(label))
  return fc.record({
    sizes: fc.constant(sizes),
    labels: fc.shuffledSubarray(labels, { minLength: labels.length }),
    count: fc.nat(labels.length - sizes.length),
    seed: fc.maxSafeNat(),
    float: fc.boolean(),
  })
})

describe('holdOut', () => {
  it('parts the training images in two, each as it was and in its order', () => {
    fc.assert(
      fc.property(cases, ({ labels, count, seed, float }) => {
        const { train, test } = holdOut(datasetOf(labels, float), count, seed)
        expect([train.count, test.count]).toEqual([labels.length - count, count])
        const parts = [samplesOf(train), samplesOf(test)]
        for (const part of parts) {
          expect(part.map(({ sample }) => sample)).toEqual(
            part.map(({ sample }) => sample).sort((a, b) => a - b),
          )
        }
        const all = parts.flat().sort((a, b) => a.sample - b.sample)
        expect(all).toEqual(labels.map((label, sample) => ({ sample, label })))
      }),
    )
  })

  it('takes of each class its share, within one image, and leaves each an image', () => {
    fc.assert(
      fc.property(cases, ({ sizes, labels, count, seed }) => {
        const { train, test } = holdOut(datasetOf(labels), count, seed)
        const counts = ({ labels }: Dataset['train']) =>
          sizes.map((_, label) => labels.filter((one) => one === label).length)
        const held = counts(test)
        expect(counts(train)).toEqual(sizes.map((size, label) => size - held[label]))
        expect(Math.min(...counts(train))).toBeGreaterThan(0)
        const shares = sizes.map((size) => (count * size) / labels.length)
        // Unless a class that would have none left leaves its part to others.
        if (shares.every((share, label) => Math.ceil(share) < sizes[label]))
          shares.forEach((share, label) => expect(Math.abs(held[label] - share)).toBeLessThan(1))
      }),
    )
  })

  it('is drawn by the seed', () => {
    const labels = Array.from({ length: 200 }, (_, i) => i % 10)
    const [a, b, other] = [1, 1, 2].map((seed) => holdOut(datasetOf(labels), 50, seed))
    expect(b.fingerprint).toBe(a.fingerprint)
    expect(other.fingerprint).not.toBe(a.fingerprint)
    expect(samplesOf(other.test)).not.toEqual(samplesOf(a.test))
  })

  it('is another data set', () => {
    const { fingerprint } = datasetOf([0, 0, 0, 1, 1, 1])
    const held = holdOut(datasetOf([0, 0, 0, 1, 1, 1]), 2, 0)
    expect(held.fingerprint).not.toBe(fingerprint)
    expect(held.origin).toMatch(/^here; 2 training images/)
  })

  it('copies nothing of what stays', () => {
    const dataset = datasetOf([0, 0, 0, 1, 1, 1])
    const { train } = holdOut(dataset, 2, 0)
    expect(train.pixels.buffer).toBe(dataset.train.pixels.buffer)
  })

  it('refuses what would leave a class empty, and says how many there may be', () => {
    const labels = [0, 0, 0, 1, 1]
    expect(holdOut(datasetOf(labels), 3, 0).train.count).toBe(2)
    expect(() => holdOut(datasetOf(labels), 4, 0)).toThrow(
      expect.objectContaining({
        code: 'E_USAGE',
        message: '--hold-out 4 leaves a class without images to train on',
        remedy: 'Hold out at most 3 of the 5 training images.',
      }),
    )
  })
})
