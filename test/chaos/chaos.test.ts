import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { scratch } from '../convoy.ts'
import { disturbed, undisturbed, type ChaosOptions } from './chaos.ts'
import { kinds, optionsOf, relaysOf, schedule } from './schedule.ts'

describe('the schedule of faults', () => {
  it('is a function of its seed, in order, and of all kinds', () => {
    expect(schedule(7, 200, 42)).toEqual(schedule(7, 200, 42))
    expect(schedule(7, 200, 42)).not.toEqual(schedule(8, 200, 42))
    const faults = schedule(7, 200, 42)
    expect(faults.map(({ step }) => step)).toEqual(faults.map(({ step }) => step).sort((a, b) => a - b))
    for (const kind of kinds) expect(faults.filter((fault) => fault.kind === kind)).toHaveLength(3)
  })
})

describe('the options of a seed', () => {
  it('are a function of it, and all come about', () => {
    expect(optionsOf(7, 64)).toEqual(optionsOf(7, 64))
    const flags = (from: number, to: number) =>
      new Set(Array.from({ length: to - from + 1 }, (_, i) => optionsOf(from + i, 64)).flat())
    const all = [
      'muon',
      'standardised',
      '--sizes',
      'crop',
      '--label-smoothing',
      '--alternating-flip',
      '--cutout',
    ]
    for (const flag of [...all, '--bias-rate', '--flip', '--replicas', '--wire', 'int8', '--down'])
      expect(flags(1, 20)).toContain(flag)
    // Those that `convoy test` takes have most of it.
    for (const flag of ['muon', 'standardised', '--sizes', '--replicas']) expect(flags(1, 3)).toContain(flag)
  })

  it('have relays before its workers or not, and also in one that `convoy test` takes', () => {
    const relays = Array.from({ length: 20 }, (_, i) => relaysOf(i + 1))
    expect([...new Set(relays)].sort()).toEqual([0, 1, 2])
    expect(Math.max(...relays.slice(0, 3))).toBe(2)
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
      // Images are of every size within the steps that are done.
      ...['--width', '0.125', '--batch-size', '64', '--micro-batch', '8', '--epochs', '6'],
    ],
    worker: [],
    relays: 0,
    folder,
    report: () => {},
  }

  describe.each([1, 2, 3])('with the options and the faults of seed %d', (seed) => {
    const run = [...options.run, ...optionsOf(seed, 64)]
    let expected: string
    beforeAll(async () => {
      expected = await undisturbed({ ...options, run })
    })

    it('ends with the bits of an undisturbed one', async () => {
      const { faults, parametersSha256 } = await disturbed({ ...options, seed, run, relays: relaysOf(seed) })
      expect(faults).toHaveLength(kinds.length)
      expect(parametersSha256).toBe(expected)
    })
  })
})
