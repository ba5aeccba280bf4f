import { Arena } from '@convoy/arena'
import { buildModel, initialise, parameterLayout } from '@convoy/model'
import { describe, expect, it } from 'vitest'
import { Muon } from './muon.ts'
import { NesterovSgd } from './nesterov.ts'
import { optimizerOf, parametrisationOf, type OptimizerSpec } from './of-model.ts'

const model = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.05 })
const { views, size } = parameterLayout(model)
const sgd: OptimizerSpec = {
  ...{ optimizer: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0, clipNorm: 0 },
  ...{ parametrisation: 'plain', whitened: false, held: true },
}

/** The optimizer of a spec, and what one update of it does to each kernel and bias. */
function update(options: Partial<OptimizerSpec>) {
  const spec = { ...sgd, ...options }
  const arena = new Arena(size)
  const parametrisation = parametrisationOf(arena, model, spec)
  const before = initialise(model, 'heNormal', 1)
  const variables = parametrisation.fromKernels(before, 1)
  const velocity = new Float32Array(parametrisation.size)
  const optimizer = optimizerOf(arena, model, spec, parametrisation, variables, velocity)
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
  it('is SGD where the spec says so', () => {
    const { optimizer, moved } = update({})
    expect(optimizer).toBeInstanceOf(NesterovSgd)
    expect(optimizer.variables).toHaveLength(size)
    expect(Math.min(...moved)).toBeGreaterThan(0)
  })

  it.each(['sgd', 'muon'] as const)('has a rate of its own for biases with %s', (optimizer) => {
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
    const { moved } = update({ optimizer: 'muon', whitened: true })
    expect(moved[0]).toBe(0)
    expect(moved[last]).toBeGreaterThan(0)
  })

  it('has Muon hold nothing where weights were given, and move their first layer', () => {
    const { moved, after } = update({ optimizer: 'muon', held: false })
    expect(Math.min(...moved)).toBeGreaterThan(0)
    for (const i of kernels.slice(1, -1))
      expect(after[i] / Math.sqrt(views[i].shape[3])).not.toBeCloseTo(1.25, 5)
  })
})
