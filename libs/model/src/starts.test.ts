import { describe, expect, it } from 'vitest'
import { copyChannels, initialise, scaleOutputs, whitenFirst } from './index.ts'
import { parameterLayout } from './layout.ts'
import { buildModel } from './zoo.ts'

const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.125 })
const kernels = parameterLayout(model).views.filter(({ role }) => role === 'kernel')
const drawn = () => initialise(model, 'heUniform', 3)

describe('#copyChannels', () => {
  it('has a 1 in the middle of each copying filter and 0 elsewhere, and leaves all else as it was', () => {
    const parameters = drawn()
    const expected = parameters.slice()
    let copies = 0
    kernels.slice(1, -1).forEach(({ shape, offset, size }) => {
      const [height, width, input, filters] = shape
      for (let i = 0; i < size; i++) {
        const [filter, channel] = [i % filters, Math.floor(i / filters) % input]
        const tap = Math.floor(i / filters / input)
        if (filter >= input) continue
        const copied = channel === filter && tap === (height * width - 1) / 2
        expected[offset + i] = Number(copied)
        copies += Number(copied)
      }
    })
    copyChannels(model, parameters)
    expect(Buffer.from(parameters.buffer).equals(Buffer.from(expected.buffer))).toBe(true)
    // conv4 has 12 channels for its 24 filters.
    expect(copies).toBe(12 * 3 + 24 * 4)
  })
})

describe('#whitenFirst', () => {
  // Columns of a reflection: orthonormal.
  const u = Float64Array.from({ length: 27 }, (_, i) => Math.sin(i * i + 1))
  const squares = u.reduce((sum, value) => sum + value * value, 0)
  const eigenvectors = Array.from(u, (a, i) =>
    Array.from(u, (b, j) => Number(i === j) - (2 * a * b) / squares),
  )
  const eigenvalues = Float64Array.from({ length: 27 }, (_, i) => 2 / (1 + i * i))
  const patches = { eigenvalues, eigenvectors }
  /** Each filter's part along each eigenvector. */
  const parts = (filters: number, parameters: Float32Array) =>
    Array.from({ length: filters }, (_, filter) =>
      eigenvectors.map((vector) =>
        vector.reduce((sum, value, row) => sum + value * parameters[row * filters + filter], 0),
      ),
    )

  it('has the eigenvectors at one variance, their negatives, and others of that variance', () => {
    const wide = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 60 / 96 })
    const parameters = initialise(wide, 'zeros', 3)
    whitenFirst(wide, parameters, patches, { epsilon: 1e-2, seed: 1 })
    const found = parts(60, parameters)
    found.slice(0, 54).forEach((filter, f) =>
      filter.forEach((part, i) => {
        const expected = f % 27 === i ? 1 / Math.sqrt(eigenvalues[i] + 1e-2) : 0
        expect(part).toBeCloseTo(f < 27 ? expected : -expected, 4)
      }),
    )
    for (const filter of found.slice(54)) {
      const variance = filter.reduce((sum, part, i) => sum + part * part * (eigenvalues[i] + 1e-2), 0)
      expect(variance).toBeCloseTo(1, 5)
    }
    expect(found[54][0]).not.toBeCloseTo(found[55][0], 3)
    expect(parameters.subarray(27 * 60).every((value) => value === 0)).toBe(true)
  })

  it('has pairs of the largest where there are few filters, and is the seed, bit for bit', () => {
    const [one, same, other] = [1, 1, 2].map((seed) => {
      const parameters = drawn()
      whitenFirst(model, parameters, patches, { epsilon: 0, seed })
      return parameters
    })
    const found = parts(12, one)
    for (let f = 0; f < 6; f++) {
      expect(found[f][f]).toBeCloseTo(1 / Math.sqrt(eigenvalues[f]), 4)
      expect(found[f + 6][f]).toBeCloseTo(-found[f][f], 6)
    }
    expect(one).toEqual(same)
    // Nothing of these is drawn.
    expect(one).toEqual(other)
    const odd = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 13 / 96 })
    const last = [1, 1, 2].map((seed) => {
      const parameters = initialise(odd, 'zeros', 1)
      whitenFirst(odd, parameters, patches, { epsilon: 0, seed })
      return parameters[12]
    })
    expect(last[1]).toBe(last[0])
    expect(last[2]).not.toBe(last[0])
  })
})

describe('#scaleOutputs', () => {
  it('gives each layer the scale that leaves its outputs with deviation 1', () => {
    const [before, after] = [drawn(), drawn()]
    const deviations = [2, 3, 0.5]
    scaleOutputs(model, after, deviations)
    // The outputs of a layer are multiplied by the factors of all layers up to it.
    let factor = 1
    kernels.forEach(({ offset }, layer) => {
      const own = after[offset] / before[offset]
      if (layer >= deviations.length) return expect(own).toBe(1)
      factor *= own
      expect(deviations[layer] * factor).toBeCloseTo(1, 6)
    })
  })
})
