import { Arena } from '@convoy/arena'
import { describe, expect, it } from 'vitest'
import { NesterovSgd, type SgdOptions } from './nesterov.ts'
import { learningRate, type Schedule } from './schedule.ts'

const plain: SgdOptions = { momentum: 0.9, nesterov: true, weightDecay: 0, decayed: [], clipNorm: 0 }

/** Ten updates of one parameter that starts at 1, on the loss w²/2, whose gradient is w. */
function tenSteps(options: Partial<SgdOptions>, schedule: Schedule): number[] {
  const { sgd, update } = start([1], [0], options)
  return Array.from({ length: 10 }, (_, step) => {
    update([sgd.parameters[0]], 1, learningRate(schedule, { step, stepsPerEpoch: 1, totalSteps: 10 }))
    return sgd.parameters[0]
  })
}

/** An optimizer on these parameters and velocities, and its update by a gradient. */
function start(w: readonly number[], v: readonly number[], options: Partial<SgdOptions>) {
  const arena = new Arena(w.length)
  const sgd = new NesterovSgd(arena, Float32Array.from(w), Float32Array.from(v), { ...plain, ...options })
  const gradient = arena.take()
  const update = (sum: readonly number[], count: number, rate: number) => {
    gradient.values.set(sum)
    return sgd.update(gradient, count, rate)
  }
  return { sgd, update }
}

function expectTable(values: readonly number[], table: readonly number[]): void {
  values.forEach((value, i) => expect(value).toBeCloseTo(table[i], 6))
}

// The tables follow Keras 2's SGD.get_updates, worked out step by step in float64:
//   lr = lr · 1/(1 + decay·t);  v = momentum·v - lr·g;  p = p + momentum·v - lr·g
// First row by hand: v = -0.1·1 = -0.1; w = 1 + 0.9·(-0.1) - 0.1 = 0.81.
// Second: v = 0.9·(-0.1) - 0.081 = -0.171; w = 0.81 - 0.1539 - 0.081 = 0.5751.
describe('NesterovSgd', () => {
  it("follows Keras's Nesterov momentum for ten steps", () => {
    expectTable(
      tenSteps({}, { kind: 'constant', rate: 0.1 }),
      [
        0.81, 0.5751, 0.327321, 0.09388791, -0.104581684, -0.254883887, -0.351140282, -0.393993934,
        -0.389305999, -0.346578172,
      ],
    )
  })

  it("follows it with Keras's decay", () => {
    expectTable(
      tenSteps({}, { kind: 'decay', rate: 0.1, decay: 0.5 }),
      [
        0.81, 0.6264, 0.450252, 0.285687648, 0.135695252, 0.001906412, -0.115104793, -0.215512003,
        -0.299991131, -0.369538233,
      ],
    )
  })

  it('adds L2 weight decay to the gradient, which is another thing', () => {
    expectTable(
      tenSteps({ weightDecay: 0.5, decayed: [[0, 1]] }, { kind: 'constant', rate: 0.1 }),
      [
        0.715, 0.389725, 0.082430875, -0.165013762, -0.329556845, -0.405998777, -0.403577038, -0.341187852,
        -0.242281947, -0.130276638,
      ],
    )
  })

  it('decays only the ranges that it is given', () => {
    const { sgd, update } = start([1, 1, 1, 1, 1], [0, 0, 0, 0, 0], {
      momentum: 0,
      weightDecay: 0.5,
      decayed: [[1, 2]],
    })
    update([0, 0, 0, 0, 0], 1, 0.1)
    expect([...sgd.parameters]).toEqual([1, Math.fround(0.95), Math.fround(0.95), 1, 1])
  })

  it('has another rate for biases, which are all that is not decayed', () => {
    const { sgd, update } = start([1, 1, 1, 1], [0, 0, 0, 0], {
      ...{ momentum: 0, weightDecay: 0.5, decayed: [[1, 2]], biasRate: 4 },
    })
    update([2, 2, 2, 2], 1, 0.1)
    expectTable([...sgd.parameters], [1 - 0.8, 1 - 0.25, 1 - 0.25, 1 - 0.8])
    expect(sgd.variables).toBe(sgd.parameters)
  })

  it('is plain gradient descent without momentum, and classical momentum without Nesterov', () => {
    const descent = start([1], [0], { momentum: 0 })
    descent.update([8], 4, 0.1)
    expect(descent.sgd.parameters[0]).toBeCloseTo(1 - 0.1 * 2, 6)
    const classical = start([1], [-0.5], { nesterov: false })
    classical.update([1], 1, 0.1)
    expect(classical.sgd.velocity[0]).toBeCloseTo(-0.55, 6)
    expect(classical.sgd.parameters[0]).toBeCloseTo(0.45, 6)
  })

  it('clips the mean gradient to a global norm, and tells the norm before', () => {
    const { sgd, update } = start([0, 0], [0, 0], { momentum: 0, clipNorm: 1 })
    expect(update([30, 40], 10, 1).gradientNorm).toBeCloseTo(5, 6)
    expect(sgd.parameters[0]).toBeCloseTo(-0.6, 6)
    expect(sgd.parameters[1]).toBeCloseTo(-0.8, 6)
    update([3, 4], 10, 1)
    expect(sgd.parameters[1]).toBeCloseTo(-0.8 - 0.4, 6)
  })

  it('tells what is done, part by part, each once and complete', () => {
    const size = 600_000
    const arena = new Arena(size)
    const sgd = new NesterovSgd(arena, new Float32Array(size), new Float32Array(size), {
      ...plain,
      weightDecay: 0.1,
      decayed: [[100_000, 400_001]],
    })
    const gradient = arena.hold(new Float32Array(size).fill(-1))
    let at = 0
    sgd.update(gradient, 1, 1, (first, end) => {
      expect(first).toBe(at)
      expect(sgd.parameters.subarray(first, end).every((value) => value > 0)).toBe(true)
      expect(sgd.parameters[end] ?? 0).toBe(0)
      at = end
    })
    expect(at).toBe(size)
  })
})

describe('learningRate', () => {
  const ten = (schedule: Schedule, stepsPerEpoch = 1, totalSteps = 10) =>
    Array.from({ length: 10 }, (_, step) => learningRate(schedule, { step, stepsPerEpoch, totalSteps }))

  it('is constant', () => expectTable(ten({ kind: 'constant', rate: 0.3 }), new Array<number>(10).fill(0.3)))

  it("is Keras's rate / (1 + decay·t)", () =>
    expectTable(
      ten({ kind: 'decay', rate: 0.01, decay: 0.25 }),
      [
        0.01, 0.008, 0.006666667, 0.005714286, 0.005, 0.004444444, 0.004, 0.003636364, 0.003333333,
        0.003076923,
      ],
    ))

  it('is c1/(t + c2)', () =>
    expectTable(
      ten({ kind: 'inverse', c1: 2, c2: 5 }),
      [
        0.4, 0.333333333, 0.285714286, 0.25, 0.222222222, 0.2, 0.181818182, 0.166666667, 0.153846154,
        0.142857143,
      ],
    ))

  it('falls by the factor after each milestone, in epochs', () =>
    expectTable(
      ten({ kind: 'steps', rate: 1, milestones: [2, 3, 4], factor: 0.1 }, 2),
      [1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001],
    ))

  it('rises and falls in straight lines, and is never 0', () =>
    expectTable(
      ten({ kind: 'oneCycle', rate: 1, warmup: 0.2 }),
      [0.25, 0.75, 0.9375, 0.8125, 0.6875, 0.5625, 0.4375, 0.3125, 0.1875, 0.0625],
    ))

  it('falls to a share of its peak where it shall', () => {
    const { kind, rate, warmup } = { kind: 'oneCycle', rate: 2, warmup: 0.2 } as const
    expectTable(ten({ kind, rate, warmup, endRate: 0.2 }), [0.5, 1.5, 1.9, 1.7, 1.5, 1.3, 1.1, 0.9, 0.7, 0.5])
    expect(ten({ kind, rate, warmup, endRate: 0 })).toEqual(ten({ kind, rate, warmup }))
    expectTable(ten({ kind, rate, warmup, endRate: 1 }).slice(2), new Array<number>(8).fill(2))
  })
})
