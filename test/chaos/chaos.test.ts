import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scratch } from '../convoy.ts'
import { disturbed, undisturbed, type ChaosOptions } from './chaos.ts'
import { kinds, schedule } from './schedule.ts'

describe('the schedule of faults', () => {
  it('is a function of its seed, in order, and of all kinds', () => {
    expect(schedule(7, 200, 42)).toEqual(schedule(7, 200, 42))
    expect(schedule(7, 200, 42)).not.toEqual(schedule(8, 200, 42))
    const faults = schedule(7, 200, 42)
    expect(faults.map(({ step }) => step)).toEqual(faults.map(({ step }) => step).sort((a, b) => a - b))
    for (const kind of kinds) expect(faults.filter((fault) => fault.kind === kind)).toHaveLength(3)
  })
})

describe('a run to which faults happen', () => {
  const { folder, remove } = scratch()
  afterAll(remove)
  const options: ChaosOptions = {
    seed: 0,
    steps: 60,
    faults: kinds.length,
    run: [
      ...['--data', process.env['CONVOY_DATA'] || 'synthetic', '--limit-train', '640', '--limit-test', '20'],
      ...['--width', '0.125', '--batch-size', '64', '--micro-batch', '8'],
    ],
    worker: [],
    folder,
    report: () => {},
  }
  let expected: string
  beforeAll(async () => {
    expected = await undisturbed(options)
  })

  it.each([1, 2, 3])('ends with the bits of an undisturbed one (seed %d)', async (seed) => {
    const { faults, parametersSha256 } = await disturbed({ ...options, seed })
    expect(faults).toHaveLength(kinds.length)
    expect(parametersSha256).toBe(expected)
  })
})
