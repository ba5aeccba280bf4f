import { buildModel, freeze, initialise, trainedLayout, TrainedParameters } from '@convoy/model'
import { describe, expect, it } from 'vitest'
import { LocalSteps } from './local-steps.ts'
import { optimizerOf, parametrisationOf, type OptimizerSpec } from './of-model.ts'

const whole = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.05 })
const given = initialise(whole, 'heNormal', 1)
const sgd: OptimizerSpec = {
  ...{ optimizer: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0.01, clipNorm: 1 },
  ...{ parametrisation: 'plain', whitened: false, held: true, biasRate: 2 },
}
const muon: OptimizerSpec = { ...sgd, optimizer: 'muon', weightDecay: 0, headRate: 0.4, whitened: true }
const cases = [
  { name: 'sgd', spec: sgd, model: whole },
  { name: 'sgd with frozen layers', spec: sgd, model: freeze(whole, 'conv1,conv5') },
  { name: 'muon', spec: muon, model: whole },
  { name: 'muon with frozen layers', spec: muon, model: freeze(whole, 'all-but-2') },
  { name: 'standardised kernels', spec: { ...sgd, parametrisation: 'standardised' } as const, model: whole },
]

describe.each(cases)('LocalSteps of $name', ({ spec, model }) => {
  const trained = new TrainedParameters(model)
  const { size } = trainedLayout(model)
  const gradient = (step: number) => Float32Array.from({ length: size }, (_, i) => Math.sin((i + step) * i))
  const local = new LocalSteps(model, spec)
  const sum = local.arena.take()

  /** Takes some steps, and returns the differences of 24 samples. */
  function round(parameters: Float32Array): Float32Array {
    local.begin(parameters)
    for (const step of [1, 2, 3]) {
      sum.values.set(gradient(step))
      local.update(sum, 8, 0.05 / step)
    }
    const difference = new Float32Array(size)
    local.difference(24, difference)
    return difference
  }

  it('are those of the optimizer from these parameters on, without momentum of before', () => {
    const first = round(given)
    const parameters = local.parameters.slice()
    const { arena } = local
    const parametrisation = parametrisationOf(arena, model, spec)
    const variables = parametrisation.fromKernels(trained.gather(given))
    const none = new Float32Array(parametrisation.size)
    const optimizer = optimizerOf(arena, model, spec, parametrisation, variables, none)
    for (const step of [1, 2, 3]) {
      sum.values.set(gradient(step))
      optimizer.update(sum, 8, 0.05 / step)
    }
    expect(trained.gather(parameters)).toEqual(optimizer.parameters)
    const before = trained.gather(given)
    expect(first).toEqual(before.map((value, i) => 24 * (value - optimizer.parameters[i])))
    expect(first.some((value) => value !== 0)).toBe(true)
    // Another round in the same object leaves nothing behind.
    round(parameters)
    expect(round(given)).toEqual(first)
    expect(local.parameters).toEqual(parameters)
  })

  it('leave what is frozen as it is', () => {
    round(given)
    const back = given.slice()
    trained.scatter(trained.gather(local.parameters), 0, size, back)
    expect(local.parameters).toEqual(back)
  })
})
