import { LeafImages, loadDataset, prepare, type Prepared } from '@convoy/data'
import {
  buildModel,
  freeze,
  initialise,
  muonKernels,
  parameterLayout,
  standardisedKernels,
  type ModelSpec,
} from '@convoy/model'
import { encodeSafetensors } from '@convoy/weights'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { trainingSchema } from '../config.ts'
import { parametersSha256 } from '../training/index.ts'
import { initialParameters } from './initial.ts'

const SIZE = 16
const model = buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10, width: 0.125 })
const { views } = parameterLayout(model)
const kernels = views.filter(({ role }) => role === 'kernel')
const fast = { identityStart: true, whitenedStart: true, initialisation: 'heNormal' }

let prepared: Prepared
let folder: string
beforeAll(async () => {
  prepared = await prepare(await loadDataset('synthetic', { limitTrain: 60, limitTest: 10 }), 'channels', {})
})
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'convoy-initial-'))
})
afterEach(() => rm(folder, { recursive: true }))

const begin = (options: object, spec: ModelSpec = model) =>
  initialParameters(trainingSchema.parse(options), spec, prepared, SIZE, folder)
const partOf = (parameters: Float32Array, { offset, size }: { offset: number; size: number }) =>
  parameters.subarray(offset, offset + size)

describe('initialParameters', () => {
  it('are drawn from the seed alone, with all starts the same bits each time', async () => {
    const options = { ...fast, optimizer: 'muon' }
    const { parameters, from } = await begin(options)
    expect(from).toBeUndefined()
    expect((await begin(options)).parameters).toEqual(parameters)
    expect((await begin({ ...options, seed: 2 })).parameters).not.toEqual(parameters)
    expect((await begin({ initialisation: 'heNormal' })).parameters).toEqual(initialise(model, 'heNormal', 1))
  })

  it('begin rounds of standardised kernels as a run without rounds begins', async () => {
    const { parameters } = await begin({ parametrisation: 'standardised', replicas: 2 })
    for (const { offset, size, filters, scale } of standardisedKernels(model)) {
      for (let filter = 0; filter < filters; filter++) {
        const values = partOf(parameters, { offset, size }).filter((_, i) => i % filters === filter)
        expect(values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0, 5)
        expect(Math.hypot(...values)).toBeCloseTo(scale, 5)
      }
    }
  })

  it('have a whitened first layer, whose outputs on the patches are uncorrelated and of variance 1', async () => {
    const { parameters } = await begin(fast)
    const { dataset, preprocessing } = prepared
    const { pixels, count } = dataset.train
    const [{ shape, offset }] = kernels
    const filters = shape[3]
    const pairs = filters / 2
    const leaf = new LeafImages(dataset.shape, preprocessing, { flip: false, shift: 0 }, 1, SIZE)
    const volume = pixels.length / count
    const outputs: number[][] = Array.from({ length: filters }, () => [])
    for (let sample = 0; sample < count; sample++) {
      leaf.clear()
      leaf.add(pixels.subarray(sample * volume, (sample + 1) * volume), 0, undefined)
      const { images } = leaf
      for (let y = 0; y < SIZE - 2; y++)
        for (let x = 0; x < SIZE - 2; x++)
          for (let filter = 0; filter < filters; filter++) {
            let sum = 0
            for (let row = 0; row < 27; row++) {
              const at = ((y + Math.floor(row / 9)) * SIZE + x) * 3 + (row % 9)
              sum += images[at] * parameters[offset + row * filters + filter]
            }
            outputs[filter].push(sum)
          }
    }
    const centred = outputs.map((values) => {
      const mean = values.reduce((a, b) => a + b, 0) / values.length
      return values.map((value) => value - mean)
    })
    const covariance = (i: number, j: number) =>
      centred[i].reduce((sum, value, k) => sum + value * centred[j][k], 0) / centred[i].length
    for (let i = 0; i < pairs; i++) {
      // What is added to an eigenvalue takes the more away the smaller it is.
      expect(covariance(i, i)).toBeLessThan(1)
      expect(covariance(i, i)).toBeGreaterThan(0.8)
      for (let j = 0; j < i; j++) expect(Math.abs(covariance(i, j))).toBeLessThan(1e-5)
      // Its negative, since a ReLU takes one side.
      expect(covariance(i, i + pairs)).toBeCloseTo(-covariance(i, i), 5)
    }
    expect(covariance(0, 0)).toBeGreaterThan(0.99)
  })

  it('copy a channel with each of the first filters of the layers between', async () => {
    const { parameters } = await begin(fast)
    for (const view of kernels.slice(1, -1)) {
      const [height, width, input, filters] = view.shape
      const middle = (height >> 1) * width + (width >> 1)
      const kernel = partOf(parameters, view)
      for (let channel = 0; channel < Math.min(input, filters); channel++) {
        const filter = kernel.filter((_, i) => i % filters === channel)
        expect([...filter.entries()].filter(([, value]) => value !== 0)).toEqual([
          [middle * input + channel, 1],
        ])
      }
    }
  })

  it('begin with a last layer of 0 for Muon, and filters of the length that it holds', async () => {
    const { parameters } = await begin({ ...fast, optimizer: 'muon' })
    expect(partOf(parameters, kernels.at(-1)!)).toEqual(new Float32Array(kernels.at(-1)!.size))
    for (const { offset, size, filters, scale } of muonKernels(model, { whitened: true }).slice(1, -1)) {
      const kernel = parameters.subarray(offset, offset + size)
      for (let filter = 0; filter < filters; filter++) {
        const values = kernel.filter((_, i) => i % filters === filter)
        expect(Math.hypot(...values)).toBeCloseTo(scale, 5)
        expect(values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0, 5)
      }
    }
    // The whitened layer stays as it is.
    expect(partOf(parameters, kernels[0])).toEqual(partOf((await begin(fast)).parameters, kernels[0]))
  })

  it('do not depend on which layers are frozen', async () => {
    const options = { ...fast, optimizer: 'muon' }
    const frozen = await begin(options, freeze(model, 'conv2,conv4'))
    expect(frozen.parameters).toEqual((await begin(options)).parameters)
  })

  it.each([{}, { optimizer: 'muon' }, { parametrisation: 'standardised' }])(
    'are those that are given, whatever else the config says (%j)',
    async (options) => {
      const given = initialise(model, 'heUniform', 7)
      const init = path.join(folder, 'given.safetensors')
      await writeFile(init, encodeSafetensors(parameterLayout(model), given, { model }))
      const { parameters, from } = await begin({ ...fast, ...options, init })
      expect(parameters).toEqual(given)
      expect(from!.sha256).toBe(parametersSha256(given))
      // A run goes on also where the file is gone.
      expect(await readFile(path.join(folder, 'init.safetensors'))).toBeDefined()
      await rm(init)
      expect((await begin({ ...fast, ...options, init })).parameters).toEqual(given)
    },
  )
})
