import { parseSizes, workOf } from '@convoy/data'
import { describe, expect, it } from 'vitest'
import { coordinatorSchema } from './config.ts'
import { recipes, type Recipe } from './recipes.ts'
import { checkOptimizer, lengthOf } from './training/index.ts'

describe.each(Object.entries<Recipe>(recipes))('the recipe %s', (_, { options, expected }) => {
  it('is a possible set of options', () => {
    const config = coordinatorSchema.strict().parse(options)
    expect(() => checkOptimizer(config)).not.toThrow()
  })

  it('says what work it is', () => {
    const config = coordinatorSchema.parse(options)
    const stages = parseSizes(config.sizes ?? '32', [32, 32, 3], config.preprocessing)
    const work = workOf(stages, lengthOf(config, config.limitTrain ?? 50_000))
    expect(work / expected.work).toBeCloseTo(1, 2)
  })
})
