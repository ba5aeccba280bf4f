import { beforeEach, describe, expect, it } from 'vitest'
import type { RunEvent } from '../events.ts'
import { GoingBack } from './going-back.ts'
import { progressOf, type Progress, type State } from './state.ts'

const STEPS = 10
const diverged = { reason: 'lossRose', message: 'the cost rose' } as const
/** A state after so many steps, in the middle of an epoch unless it ended one. */
const at = (step: number, more: Partial<Progress> = {}): State => ({
  ...{ parameters: new Float32Array(), velocity: new Float32Array() },
  ...{ step, epoch: Math.floor(step / STEPS), epochSamples: step % STEPS, ...more },
})

let events: RunEvent[]
let asked: (number | 'save')[]
/** A training, and checkpoints of every epoch's end up to where it stands. */
let training: { progress: Progress; restore(state: State): void }
const states = {
  kept: (step: number) => Math.floor(step / STEPS) * STEPS,
  async rewind(last: number) {
    asked.push(last)
    return at(Math.max(0, states.kept(last)))
  },
  async save() {
    asked.push('save')
  },
}
const goingBack = (onDivergence: 'stop' | 'rollback') =>
  new GoingBack(onDivergence, STEPS, (event) => events.push(event))
const standAt = (state: State) => (training.progress = progressOf(state))

beforeEach(() => {
  events = []
  asked = []
  training = {
    progress: progressOf(at(0)),
    restore(state) {
      this.progress = progressOf(state)
    },
  }
})

describe('GoingBack', () => {
  it('does nothing where nothing is wrong', async () => {
    const back = goingBack('rollback')
    expect(back.due).toBe(false)
    expect(await back.goBack(training, states)).toBe(false)
    expect(events).toEqual([])
  })

  it('goes to before gradients that are in doubt; where none was applied the step is only done again', async () => {
    const back = goingBack('stop')
    standAt(at(25))
    back.doubt(13, 'doubt')
    expect(back.due).toBe(true)
    expect(await back.goBack(training, states)).toBe(true)
    expect(training.progress.step).toBe(10)
    back.doubt(10, 'doubt')
    await back.goBack(training, states)
    expect(asked).toEqual([13])
    expect(events).toMatchObject([
      { event: 'rolledBack', from: 25, to: 10, rateFactor: 1 },
      { event: 'rolledBack', from: 10, to: 10, rateFactor: 1 },
    ])
  })

  it('goes to the beginning, at the full rate, where gradients before a lowered rate are in doubt', async () => {
    const back = goingBack('rollback')
    standAt(at(25, { rateFactor: 0.5, loweredAt: 20 }))
    back.doubt(13, 'doubt')
    await back.goBack(training, states)
    expect(asked).toEqual([-1])
    expect(training.progress).toMatchObject({ step: 0, rateFactor: 1 })
  })

  it('halves the rate from the last epoch on, saves that, and goes an epoch further back where it was lowered there', async () => {
    const back = goingBack('rollback')
    standAt(at(25))
    back.diverged(diverged, training.progress)
    await back.goBack(training, states)
    expect(training.progress).toMatchObject({ step: 20, rateFactor: 0.5, loweredAt: 20 })
    standAt(at(27, { rateFactor: 0.5, loweredAt: 20 }))
    back.diverged(diverged, training.progress)
    await back.goBack(training, states)
    expect(training.progress).toMatchObject({ step: 10, rateFactor: 0.25, loweredAt: 10 })
    expect(asked).toEqual([20, 'save', 10, 'save'])
  })

  it('goes to the epoch before where a test at its end found it, and to the start of one that never learned', async () => {
    const back = goingBack('rollback')
    standAt(at(20))
    back.diverged(diverged, training.progress)
    await back.goBack(training, states)
    expect(training.progress.step).toBe(10)
    standAt(at(25))
    back.diverged({ reason: 'deadStart', message: 'dead' }, training.progress)
    await back.goBack(training, states)
    expect(training.progress.step).toBe(0)
  })

  it('repeats steps at their old rate where the disk has an earlier state only', async () => {
    const back = goingBack('rollback')
    standAt(at(25))
    back.diverged(diverged, training.progress)
    await back.goBack(training, { ...states, rewind: async () => at(10) })
    expect(training.progress).toMatchObject({ step: 10, rateFactor: 1 })
    expect(asked).toEqual([])
    training.progress.step = 20
    back.lowerWhenDue(training.progress)
    expect(training.progress).toMatchObject({ rateFactor: 0.5, loweredAt: 20 })
  })

  it('ends the training where that is asked for, or after six halvings', async () => {
    const stop = goingBack('stop')
    stop.diverged(diverged, training.progress)
    await expect(stop.goBack(training, states)).rejects.toMatchObject({ code: 'E_DIVERGED' })
    const back = goingBack('rollback')
    for (let halvings = 0; halvings < 6; halvings++) {
      standAt(at(95, { rateFactor: 0.5 ** halvings }))
      back.diverged(diverged, training.progress)
      expect(await back.goBack(training, states)).toBe(true)
    }
    standAt(at(95, { rateFactor: 0.5 ** 6 }))
    back.diverged(diverged, training.progress)
    await expect(back.goBack(training, states)).rejects.toMatchObject({ code: 'E_DIVERGED' })
  })
})
