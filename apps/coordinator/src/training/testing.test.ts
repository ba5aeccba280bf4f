import type { Dataset } from '@convoy/data'
import type { ModelSpec } from '@convoy/model'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Cluster, ParameterFrame } from '../cluster/index.ts'
import type { RunEvent } from '../events.ts'
import { Evaluation } from './evaluation.ts'
import { Testing } from './testing.ts'

afterEach(() => vi.restoreAllMocks())

/** A run of ten steps an epoch with so many epochs of small images, tested after each of eight epochs. */
async function expectations(small: number): Promise<(number | null | undefined)[]> {
  const expected: (number | null | undefined)[] = []
  const testing = new Testing({
    config: { evaluateEvery: 1, until: '90%' },
    model: { classes: 10 } as ModelSpec,
    dataset: { test: { count: 10, pixels: new Float32Array(10) } } as unknown as Dataset,
    sizes: {
      at: (step) => ({ size: step < 10 * small ? 16 : undefined, microBatch: 16, leaf: 16, cost: 1 }),
    },
    cluster: { compute: () => Promise.resolve(true) } as unknown as Cluster,
    report: (event: RunEvent) => event.event === 'test' && expected.push(event.expectedEpoch),
    tests: [],
  })
  for (let epoch = 1; epoch <= 8; epoch++) {
    const accuracy = 1 - 0.8 / epoch
    vi.spyOn(Evaluation.prototype, 'score').mockReturnValue({ accuracy, loss: 1 } as never)
    await testing.test({} as ParameterFrame, { epoch, step: 10 * epoch })
  }
  return expected
}

describe('Testing', () => {
  it('expects an accuracy from three tests on', async () => {
    const [first, second, ...others] = await expectations(0)
    expect([first, second]).toEqual([null, null])
    expect(others).toHaveLength(6)
    // The last is the accuracy itself.
    for (const epoch of others.slice(0, -1)) expect(epoch).toBeCloseTo(8, 6)
  })

  it('expects it only from tests of what learned from images of full size', async () => {
    const found = await expectations(4)
    expect(found.slice(0, 6)).toEqual([null, null, null, null, null, null])
    expect(found[6]).toBeCloseTo(8, 6)
  })
})
