import { stepCount } from '@convoy/data'
import { learningRate } from '@convoy/optim'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { trainingSchema } from '../config.ts'
import { checkRounds, roundsOf } from './rounds.ts'
import { firstBatchAt, lengthOf, ratesAt, scheduleOf } from './schedule.ts'

const config = (options: object) => trainingSchema.parse({ batchSize: 8, ...options })
const images = (count: number) =>
  ({ shape: [32, 32, 3], train: { count } }) satisfies Parameters<typeof checkRounds>[1]

describe('checkRounds', () => {
  it.each([
    [{ localSteps: 8 }, /--local-steps 8 is not possible: without --replicas/],
    [{ outerRate: 1 }, /--outer-rate 1 is not possible/],
    [{ localSteps: 1, outerMomentum: 0 }, /--outer-momentum 0 is not possible/],
    [{ replicas: 2, batchSize: 'full' }, /--replicas 2 does not go with --batch-size full/],
    [{ replicas: 4, localSteps: 4 }, /4 replicas × 4 steps × 8 samples = 128, more than the 100 of an epoch/],
  ])('refuses %j', (options, message) => {
    const check = () => checkRounds(config(options), images(100))
    expect(check).toThrowError(message)
    expect(check).toThrowError(expect.objectContaining({ code: 'E_USAGE' }))
  })

  it('refuses a round whose images are no message', () => {
    const options = config({ replicas: 1, localSteps: 10_000, batchSize: 10 })
    expect(() => checkRounds(options, images(1_000_000))).toThrowError(/are 308 MB, more than the 268 MB/)
  })

  it.each([
    {},
    { localSteps: 1 },
    { replicas: 1 },
    { replicas: 3, localSteps: 4, outerRate: 1, outerMomentum: 0 },
  ])('takes %j', (options) => expect(() => checkRounds(config(options), images(100))).not.toThrow())
})

describe('roundsOf', () => {
  it('is none without replicas, as it is with one local step alone', () => {
    expect(roundsOf(config({}))).toBeUndefined()
    expect(roundsOf(config({ localSteps: 1 }))).toBeUndefined()
  })

  it("has DiLoCo's outer rate and momentum unless it is told others", () => {
    expect(roundsOf(config({ replicas: 3, localSteps: 4 }))).toEqual({
      ...{ steps: 4, replicas: 3, batchSize: 8, outerRate: 0.7, outerMomentum: 0.9 },
    })
  })
})

const schedules = fc.constantFrom('constant', 'decay', 'inverse', 'steps', 'oneCycle')
const small = fc.integer({ min: 1, max: 6 })

describe('a run in rounds', () => {
  it('draws and rates as one without for a single replica, with a shorter last round or not', () => {
    fc.assert(
      fc.property(
        schedules,
        small,
        small,
        fc.integer({ min: 48, max: 130 }),
        (schedule, localSteps, epochs, count) => {
          const options = { schedule, epochs, milestones: [1, 2] }
          const plain = lengthOf(config(options), count)
          const rounds = lengthOf(config({ ...options, replicas: 1, localSteps }), count)
          const how = scheduleOf(config(options))
          let batch = 0
          for (let step = 0; step < rounds.totalSteps; step++) {
            const at = { step, epoch: Math.floor(step / rounds.stepsPerEpoch) }
            expect(firstBatchAt(rounds, at)).toBe(batch)
            for (const rate of ratesAt(how, rounds, at))
              expect(rate).toBe(learningRate(how, { ...plain, step: batch++ }))
          }
          expect(batch).toBe(plain.totalSteps)
        },
      ),
    )
  })

  it('numbers every batch of the run once, and has rates for the longest replica', () => {
    fc.assert(
      fc.property(small, small, fc.integer({ min: 300, max: 700 }), (replicas, localSteps, count) => {
        const settings = config({ replicas, localSteps, epochs: 2, schedule: 'oneCycle' })
        const length = lengthOf(settings, count)
        const leaf = localSteps * 8
        const batches: number[] = []
        const rates: number[] = []
        for (let step = 0; step < length.totalSteps; step++) {
          const epoch = Math.floor(step / length.stepsPerEpoch)
          const from = (step - epoch * length.stepsPerEpoch) * length.batchSize
          const samples = Math.min(length.batchSize, count - from)
          const first = firstBatchAt(length, { step, epoch })
          batches.push(...Array.from({ length: stepCount(samples, 8) }, (_, i) => first + i))
          const these = ratesAt(scheduleOf(settings), length, { step, epoch })
          expect(these).toHaveLength(stepCount(Math.min(samples, leaf), 8))
          rates.push(...these)
        }
        expect(batches).toEqual(Array.from({ length: 2 * stepCount(count, 8) }, (_, i) => i))
        expect(rates.every((rate) => rate > 0)).toBe(true)
      }),
    )
  })
})
