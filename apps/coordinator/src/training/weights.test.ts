import { Arena } from '@convoy/arena'
import {
  buildModel,
  freeze,
  gradientCut,
  initialise,
  parameterLayout,
  standardisedKernels,
  trainedLayout,
} from '@convoy/model'
import { decodeFrame } from '@convoy/protocol'
import { describe, expect, it } from 'vitest'
import { trainingSchema } from '../config.ts'
import type { State } from './state.ts'
import { Weights } from './weights.ts'

const plain = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 10, width: 0.05 })
const given = initialise(plain, 'heNormal', 1)

/** Weights that learn from made-up gradients. */
function start(options: object, frozen: string | undefined, from: State = { parameters: given }) {
  const model = frozen === undefined ? plain : freeze(plain, frozen)
  const arena = new Arena(trainedLayout(model).size)
  const config = trainingSchema.parse({ freeze: frozen, biasRate: 0.5, ...options })
  const weights = new Weights(model, arena, config, from)
  const gradient = arena.take()
  return {
    weights,
    /** Rounds have no part of a difference before the others. */
    cut: 'replicas' in options ? 0 : gradientCut(model),
    /**
     * Updates up to and with number `last`.
     *
     * @param ahead Whether part of each is done ahead, before and after it is once taken back. What was sent is put together.
     */
    learn(last: number, ahead = false) {
      for (let step = weights.frame.step + 1; step <= last; step++) {
        const sent: number[] = []
        const all = gradient.values.map((_, i) => Math.sin((i + step) * i))
        let tail: { bytes: Uint8Array; from: number } | undefined
        if (ahead) {
          const cut = gradientCut(model)
          for (const rate of [1, 0.05 / step]) {
            weights.takeBack()
            gradient.values.fill(NaN, 0, cut).set(all.subarray(cut), cut)
            weights.begin(gradient, { cut, count: 2, rate, step }, (frame, from, present) => {
              expect(present).toBe(weights.frame.version)
              tail = { bytes: frame.tail(from), from }
            })
          }
          // Standardised kernels are all in one part here.
          expect(tail !== undefined).toBe(!('parametrisation' in options))
        }
        gradient.values.set(all)
        weights.update({ gradient, count: 2 }, 0.05 / step, step, (frame) => (complete) => {
          sent.push(complete)
          frame.next(complete)
        })
        expect(sent.at(-1)).toBe(given.length)
        if (tail) {
          const ends = [weights.frame.head(), tail.bytes].map((bytes) => decodeFrame(bytes))
          const values = ends.flatMap(({ payload }) => [...new Float32Array(payload.slice().buffer)])
          expect(values).toEqual([...weights.frame.values])
          const { version } = weights.frame
          expect(ends[0].header).toEqual({ kind: 'parameters', step, ahead: { from: tail.from, version } })
          expect(ends[1].header).toEqual({ kind: 'parametersTail', from: tail.from, version })
        }
      }
    },
    /** A copy of the present state, as a checkpoint has it. */
    state(): State {
      const { parameters, variables, velocity } = weights.state
      return {
        step: weights.frame.step,
        ...{ parameters: parameters.slice(), velocity: velocity.slice() },
        ...(variables ? { variables: variables.slice() } : {}),
      }
    },
  }
}

const optimizers: [name: string, options: object][] = [
  ['sgd', { weightDecay: 0.01 }],
  ['muon', { optimizer: 'muon', headRate: 0.4 }],
  ['a fixed first layer', { optimizer: 'muon', whitenedStart: true }],
  ['standardised kernels', { parametrisation: 'standardised' }],
  ['rounds', { replicas: 2, outerMomentum: 0.8 }],
]
const cases = optimizers.flatMap(([name, options]) =>
  [undefined, 'conv1,conv5', 'all-but-2'].flatMap((frozen) =>
    [undefined, 'given.h5'].map((init) => ({ name, options: { ...options, init }, frozen, init })),
  ),
)

describe.each(cases)('Weights with $name, frozen $frozen, init $init', ({ options, frozen }) => {
  it('go on from their state to the same bits, in the same object and in another', () => {
    const one = start(options, frozen)
    one.learn(3)
    const state = one.state()
    one.learn(6)
    const expected = one.state()
    expect(expected.parameters).not.toEqual(state.parameters)

    const other = start(options, frozen, state)
    expect(other.state()).toEqual(state)
    other.learn(6)
    expect(other.state()).toEqual(expected)

    // Part of each update before the gradient's beginning is known.
    const early = start(options, frozen)
    early.learn(6, early.cut > 0)
    expect(early.state()).toEqual(expected)

    // What a rollback does.
    one.weights.restore(state)
    expect(one.state()).toEqual(state)
    one.learn(6)
    expect(one.state()).toEqual(expected)
  })

  it('leave what is frozen as it is, without velocity', () => {
    const one = start(options, frozen)
    one.learn(2)
    const trained = trainedLayout(frozen === undefined ? plain : freeze(plain, frozen)).views
    const views = parameterLayout(plain).views.filter(({ name }) => trained.every((one) => one.name !== name))
    expect(views.length > 0).toBe(frozen !== undefined)
    const { parameters, variables, velocity } = one.state()
    for (const { offset, size } of views) {
      expect(parameters.subarray(offset, offset + size)).toEqual(given.subarray(offset, offset + size))
      if (!variables) expect(velocity!.subarray(offset, offset + size)).toEqual(new Float32Array(size))
    }
  })
})

describe('Weights that were given', () => {
  it.each(optimizers)('begin as what they are with %s', (_, options) => {
    const { parameters } = start({ ...options, init: 'given.h5' }, undefined).state()
    const differences = parameters.map((value, i) => Math.abs(value - given[i]))
    if ('parametrisation' in options) expect(Math.max(...differences)).toBeLessThan(1e-6)
    else expect(parameters).toEqual(given)
  })
})

describe('Weights of a fresh start', () => {
  it('have filters of mean 0 and of the length of their layer where they are standardised', () => {
    const { parameters } = start({ parametrisation: 'standardised' }, undefined).state()
    for (const { offset, size, filters, scale } of standardisedKernels(plain)) {
      for (let filter = 0; filter < filters; filter++) {
        const values = parameters.subarray(offset, offset + size).filter((_, i) => i % filters === filter)
        expect(values.reduce((sum, value) => sum + value, 0)).toBeCloseTo(0, 5)
        expect(Math.hypot(...values)).toBeCloseTo(scale, 5)
      }
    }
  })
})
