import { Arena } from '@convoy/arena'
import { buildModel, initialise, parameterLayout } from '@convoy/model'
import { Muon, NesterovSgd } from '@convoy/optim'
import { describe, expect, it } from 'vitest'
import { trainingSchema } from '../config.ts'
import { checkOptimizer, optimizerOf, parametrisationOf } from './optimizer.ts'

const model = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.05 })
const { views, size } = parameterLayout(model)
const config = (options: object) => trainingSchema.parse({ initialisation: 'heNormal', ...options })

describe('checkOptimizer', () => {
  it.each([
    [{ headRate: 0.4 }, /--head-rate 0.4 does not go with --optimizer sgd/],
    [{ optimizer: 'sgd', headRate: 1 }, /--head-rate 1 does not go with --optimizer sgd/],
    [{ optimizer: 'muon', weightDecay: 0.1 }, /--weight-decay 0.1 does not go with --optimizer muon/],
    [{ optimizer: 'muon', nesterov: false }, /--no-nesterov does not go with --optimizer muon/],
    [
      { optimizer: 'muon', parametrisation: 'standardised' },
      /--parametrisation standardised does not go with --optimizer muon/,
    ],
  ])('refuses %j', (options, message) => {
    const check = () => checkOptimizer(config(options))
    expect(check).toThrowError(message)
    expect(check).toThrowError(expect.objectContaining({ code: 'E_USAGE' }))
  })

  it.each([
    {},
    { weightDecay: 0.1, nesterov: false, biasRate: 2, parametrisation: 'standardised' },
    { optimizer: 'muon', headRate: 0.4, biasRate: 0.3, clipNorm: 1, parametrisation: 'plain' },
  ])('takes %j', (options) => {
    expect(() => checkOptimizer(config(options))).not.toThrow()
  })
})

/** The optimizer of a config, and what one update of it does to each kernel and bias. */
function update(options: object) {
  const settings = config(options)
  const arena = new Arena(size)
  const parametrisation = parametrisationOf(arena, model, settings)
  const before = initialise(model, 'heNormal', 1)
  const variables = parametrisation.fromKernels(before, 1)
  const velocity = new Float32Array(parametrisation.size)
  const optimizer = optimizerOf(arena, model, settings, parametrisation, variables, velocity)
  const start = optimizer.parameters.slice()
  optimizer.update(arena.hold(Float32Array.from({ length: size }, (_, i) => Math.sin(i * i))), 2, 0.1)
  const after = optimizer.parameters
  const moved = views.map(({ offset, size }) =>
    Math.max(...after.subarray(offset, offset + size).map((value, i) => Math.abs(value - start[offset + i]))),
  )
  const norms = (of: Float32Array) =>
    views.map(({ offset, size }) => Math.hypot(...of.subarray(offset, offset + size)))
  return { optimizer, moved, before: norms(start), after: norms(after) }
}
const biases = views.flatMap(({ role }, i) => (role === 'bias' ? [i] : []))
const kernels = views.flatMap(({ role }, i) => (role === 'kernel' ? [i] : []))

describe('optimizerOf', () => {
  it('is SGD unless the config says otherwise', () => {
    const { optimizer, moved } = update({})
    expect(optimizer).toBeInstanceOf(NesterovSgd)
    expect(optimizer.variables).toHaveLength(size)
    expect(Math.min(...moved)).toBeGreaterThan(0)
  })

  it.each(['sgd', 'muon'])('has a rate of its own for biases with %s', (optimizer) => {
    const { moved } = update({ optimizer, biasRate: 0 })
    for (const i of biases) expect(moved[i]).toBe(0)
    for (const i of kernels) expect(moved[i]).toBeGreaterThan(0)
  })

  it('moves one variable more a filter, and a mean that stays, where kernels are standardised', () => {
    const { optimizer, moved } = update({ parametrisation: 'standardised' })
    const filters = kernels.slice(0, -1).reduce((sum, i) => sum + views[i].shape[3], 0)
    expect(optimizer.variables).toHaveLength(size + 2 * filters)
    expect(optimizer.variables.subarray(size + filters)).toEqual(new Float32Array(filters))
    expect(optimizer.velocity.subarray(size, size + filters).every((v) => v !== 0)).toBe(true)
    expect(Math.min(...moved)).toBeGreaterThan(0)
  })

  it('has Muon hold the norms of all kernels but the last', () => {
    const { optimizer, moved, before, after } = update({ optimizer: 'muon' })
    expect(optimizer).toBeInstanceOf(Muon)
    expect(Math.min(...moved)).toBeGreaterThan(0)
    for (const i of kernels.slice(0, -1)) {
      const filters = views[i].shape[3]
      const scale = after[i] / Math.sqrt(filters)
      expect(scale).toBeCloseTo(i === 0 ? 1 : 1.25, 5)
      expect(before[i]).not.toBeCloseTo(after[i], 2)
    }
  })

  it('has Muon leave the last layer at --head-rate 0, and a whitened first layer', () => {
    const last = kernels.at(-1)!
    expect(update({ optimizer: 'muon', headRate: 0 }).moved[last]).toBe(0)
    const { moved } = update({ optimizer: 'muon', whitenedStart: true })
    expect(moved[0]).toBe(0)
    expect(moved[last]).toBeGreaterThan(0)
  })

  it('has Muon hold nothing where weights were given, and move their first layer', () => {
    const { moved, after } = update({ optimizer: 'muon', whitenedStart: true, init: 'a.h5' })
    expect(Math.min(...moved)).toBeGreaterThan(0)
    for (const i of kernels.slice(1, -1))
      expect(after[i] / Math.sqrt(views[i].shape[3])).not.toBeCloseTo(1.25, 5)
  })
})
