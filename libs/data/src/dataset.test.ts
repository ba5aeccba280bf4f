import { expect, it } from 'vitest'
import { makeDataset, withClasses } from './dataset.ts'

it('gives images the numbers that their classes have elsewhere', () => {
  const split = { count: 2, pixels: new Uint8Array(6), labels: Int32Array.of(0, 1) }
  const dataset = makeDataset({
    ...{ name: 'x', origin: 'x', classes: ['b', 'c'], shape: [1, 1, 3] as const },
    ...{ train: split, test: split },
  })
  const { classes, test } = withClasses(dataset, ['c', 'a', 'b'])
  expect(classes).toEqual(['c', 'a', 'b'])
  expect([...test.labels]).toEqual([2, 0])
  expect(withClasses(dataset, ['b', 'c'])).toBe(dataset)
})
