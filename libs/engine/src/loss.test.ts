import type { ModelSpec } from '@convoy/model'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { crossEntropy } from './loss.ts'

const classes = 4
const batches = fc.array(
  fc.tuple(
    fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: classes, maxLength: classes }),
    fc.nat(classes - 1),
  ),
  { minLength: 1, maxLength: 5 },
)

function run(
  model: Pick<ModelSpec, 'head' | 'labelSmoothing'>,
  batch: readonly (readonly [number[], number])[],
) {
  const logits = Float64Array.from(batch.flatMap(([z]) => z))
  const labels = Int32Array.from(batch, ([, label]) => label)
  const gradient = new Float64Array(logits.length)
  const totals = crossEntropy({ ...model, classes }, logits, labels, batch.length, gradient, {
    loss: 0,
    correct: 0,
  })
  return { ...totals, gradient }
}

describe('crossEntropy', () => {
  const smoothings = fc.double({ min: 0, max: 0.9, noNaN: true })

  it("is Keras's categorical cross-entropy of a softmax with smoothed labels, and its gradient", () => {
    fc.assert(
      fc.property(batches, smoothings, (batch, labelSmoothing) => {
        const { loss, gradient } = run({ head: 'softmax', labelSmoothing }, batch)
        let expected = 0
        batch.forEach(([z, label], sample) => {
          const log = z.map((a) => -Math.log(z.reduce((sum, b) => sum + Math.exp(b - a), 0)))
          log.forEach((value, c) => {
            const target = Number(c === label) * (1 - labelSmoothing) + labelSmoothing / classes
            expected -= target * value
            expect(gradient[sample * classes + c]).toBeCloseTo(Math.exp(value) - target, 10)
          })
        })
        expect(loss).toBeCloseTo(expected, 8)
      }),
    )
  })

  it("is Keras's binary cross-entropy of sigmoids with smoothed labels, and its gradient", () => {
    fc.assert(
      fc.property(batches, smoothings, (batch, labelSmoothing) => {
        const { loss, gradient } = run({ head: 'sigmoid', labelSmoothing }, batch)
        let expected = 0
        batch.forEach(([z, label], sample) =>
          z.forEach((value, c) => {
            const target = Number(c === label) * (1 - labelSmoothing) + labelSmoothing / 2
            expected += target * Math.log1p(Math.exp(-value)) + (1 - target) * Math.log1p(Math.exp(value))
            expect(gradient[sample * classes + c]).toBeCloseTo(1 / (1 + Math.exp(-value)) - target, 10)
          }),
        )
        expect(loss).toBeCloseTo(expected, 8)
      }),
    )
  })

  it.each(['softmax', 'sigmoid'] as const)('is the same bits without smoothing and with 0, %s', (head) => {
    fc.assert(
      fc.property(batches, (batch) => {
        expect(run({ head, labelSmoothing: 0 }, batch)).toEqual(run({ head }, batch))
      }),
    )
  })

  it('counts those whose largest logit, the first of equals, is their label', () => {
    const equal = [1, 3, 3, 0]
    expect(
      run({ head: 'softmax', labelSmoothing: 0.3 }, [
        [equal, 1],
        [equal, 2],
        [equal, 1],
      ]).correct,
    ).toBe(2)
  })

  it.each(['softmax', 'sigmoid'] as const)('does not overflow, %s', (head) => {
    expect(run({ head }, [[[1000, -1000, -1000, -1000], 1]]).loss).toBe(2000)
    expect(run({ head, labelSmoothing: 0.1 }, [[[1000, -1000, 0, 0], 1]]).loss).toBeLessThan(2000)
  })
})
