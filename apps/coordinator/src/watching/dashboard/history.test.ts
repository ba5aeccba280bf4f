import { describe, expect, it } from 'vitest'
import { History } from './history.ts'
import type { RunEvent } from '../../events.ts'

const start: RunEvent = {
  ...{ event: 'start', run: 'r', model: 'm', parameters: 1, data: 'd', origin: 'o', trainImages: 100 },
  ...{ testImages: 10, epochs: 2, stepsPerEpoch: 10, batchSize: 10, seed: 1, resumedAt: 0 },
}
/** A step as older runs kept it, without the windows' costs. */
const step = (step: number, more: object = {}) =>
  ({
    ...{
      event: 'step',
      step,
      epoch: Math.floor((step - 1) / 10),
      loss: step,
      accuracy: 0.5,
      learningRate: 0.1,
    },
    ...{ gradientNorm: 1, samples: 10, seconds: 2, workers: 3, ...more },
  }) as unknown as RunEvent
const none = { sent: 0, received: 0 }

describe('History', () => {
  it('says how far the run is, how fast, and how long it will take', () => {
    const history = new History()
    for (const event of [start, ...[1, 2, 3, 4].map((n) => step(n))]) history.hear(event, 0)
    expect(history.status(none)).toMatchObject({
      phase: 'training',
      step: 4,
      cost1000: 2.5,
      imagesPerSecond: 5,
      seconds: 8,
      eta: 32,
      workers: 3,
    })
  })

  it('ends where --steps ends it', () => {
    const history = new History()
    for (const event of [{ ...start, steps: 6 }, step(1)]) history.hear(event, 0)
    expect(history.about?.totalSteps).toBe(6)
    expect(history.status(none).eta).toBe(10)
  })

  it('tells the time to go by the work that is left where images are smaller at first', () => {
    const history = new History()
    const sizes = [
      { from: 0, size: 16 },
      { from: 10, size: 32 },
    ]
    history.hear({ ...start, sizes }, 0)
    for (let i = 1; i <= 8; i++) history.hear(step(i, { size: 16 }), 0)
    expect(history.about?.sizes).toEqual(sizes)
    // Two steps at a quarter of the cost, ten at the whole of it; a quarter takes two seconds.
    expect(history.status(none)).toMatchObject({ imagesPerSecond: 5, eta: 2 * 2 + 10 * 8 })
    for (const n of [9, 10]) history.hear(step(n, { size: 16 }), 0)
    history.hear(step(11, { seconds: 8 }), 0)
    expect(history.status(none).eta).toBe(9 * 8)
  })

  it('takes the windowed costs of the events where they bring them', () => {
    const history = new History()
    history.hear(start, 0)
    history.hear(step(1, { cost1000: 7, cost5000: null }), 0)
    expect(history.status(none)).toMatchObject({ cost1000: 7, cost5000: 1 })
  })

  it('keeps going through a cost that was not finite', () => {
    const history = new History()
    for (const event of [start, step(1, { loss: null })]) history.hear(event, 0)
    expect(history.status(none).cost1000).toBeNull()
  })

  it('takes back what a resumed run does again', () => {
    const history = new History()
    const test: RunEvent = { event: 'test', epoch: 1, step: 10, testLoss: 1, testAccuracy: 0.5, seconds: 1 }
    for (const event of [start, ...Array.from({ length: 10 }, (_, i) => step(i + 1)), test])
      history.hear(event, 0)
    history.hear({ ...start, resumedAt: 5 }, 0)
    history.hear(step(6, { loss: 60 }), 0)
    expect(history.tests).toEqual([])
    expect(history.curves.rows(0, Infinity, 100).step).toEqual([1, 2, 3, 4, 5, 6])
    expect(history.status(none)).toMatchObject({ step: 6, cost1000: 12.5 })
  })

  it('makes notes of faults and verdicts', () => {
    const history = new History()
    history.hear({ event: 'workerLeft', worker: 'a', reason: 'connection closed', workers: 0 }, 5)
    history.hear({ event: 'workerLeft', worker: 'b', reason: 'left', workers: 0 }, 6)
    history.hear(
      {
        event: 'verdict',
        step: 3,
        epoch: 0,
        verdict: 'notLearning',
        reason: 'It is flat.',
        cost1000: 1,
        cost5000: 1,
      },
      7,
    )
    expect(history.lastNotes()).toEqual([
      { time: 5, step: 0, kind: 'fault', text: 'a is lost: connection closed.' },
      { time: 6, step: 0, kind: 'worker', text: 'b left.' },
      { time: 7, step: 3, kind: 'verdict', text: 'Now not learning. It is flat.' },
    ])
    expect(history.status(none).verdict).toEqual({ step: 3, verdict: 'notLearning', reason: 'It is flat.' })
  })
})
