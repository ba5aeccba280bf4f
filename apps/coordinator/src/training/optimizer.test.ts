import { optimizerSpec } from '@convoy/optim'
import { describe, expect, it } from 'vitest'
import { trainingSchema } from '../config.ts'
import { checkOptimizer, optimizerSpecOf } from './optimizer.ts'

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

describe('optimizerSpecOf', () => {
  const plain = {
    ...{ optimizer: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0, clipNorm: 0 },
    ...{ parametrisation: 'plain', whitened: false, held: true },
  }
  it.each([
    [{}, {}],
    [
      { optimizer: 'muon', headRate: 0.4, biasRate: 0.3, whitenedStart: true },
      { optimizer: 'muon', headRate: 0.4, biasRate: 0.3, whitened: true },
    ],
    // Weights that were given are not held, and their first layer is no whitening one.
    [
      { optimizer: 'muon', whitenedStart: true, init: 'a.h5' },
      { optimizer: 'muon', held: false },
    ],
    [
      { parametrisation: 'standardised', clipNorm: 2 },
      { parametrisation: 'standardised', clipNorm: 2 },
    ],
  ])('of %j is what can be sent', (options, expected) => {
    const spec = optimizerSpecOf(config(options))
    expect(spec).toEqual({ ...plain, ...expected })
    expect(optimizerSpec.parse(spec)).toEqual(spec)
  })
})
