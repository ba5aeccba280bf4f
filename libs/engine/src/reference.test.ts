import { parameterLayout } from '@convoy/model'
import { describe, expect, it } from 'vitest'
import { heads, kinds, small } from '../test/cases.ts'
import { drawLeaf, referenceGradient } from './reference.ts'

const nets = [...Object.entries(kinds).map(([name, layers]) => small(name, layers)), ...heads]

describe('the float64 reference', () => {
  it.each(nets.map((model) => [model.name, model] as const))(
    'agrees with central differences for %s',
    (_, model) => {
      const leaf = drawLeaf(model, 2, 3)
      const { gradient } = referenceGradient(model, leaf.parameters, leaf.batch, leaf.masks)
      const { views } = parameterLayout(model)
      for (const view of views) {
        // Where a ReLU or a maximum tips over within the difference, that one says nothing: the median counts.
        const errors = [0, 0.29, 0.53, 0.71, 0.97].map((share) => {
          const i = view.offset + Math.floor(share * view.size)
          const lossAt = (shift: number) => {
            const moved = Float64Array.from(leaf.parameters)
            moved[i] += shift
            return referenceGradient(model, moved, leaf.batch, leaf.masks).loss
          }
          const slope = (lossAt(1e-6) - lossAt(-1e-6)) / 2e-6
          return Math.abs(slope - gradient[i]) / (Math.abs(slope) + 1e-3)
        })
        expect(errors.sort((a, b) => a - b)[2]).toBeLessThan(1e-4)
      }
    },
  )
})
