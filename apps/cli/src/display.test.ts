import { Writable } from 'node:stream'
import type { RunEvent } from '@convoy/coordinator'
import { describe, expect, it, vi } from 'vitest'
import { Display } from './display.ts'

describe('Display', () => {
  function display(style: 'terminal' | 'pipe' | 'json') {
    let text = ''
    const out = new Writable({
      write(chunk: Buffer, _encoding, next) {
        text += chunk.toString()
        next()
      },
    })
    return { display: new Display(style, out), text: () => text }
  }
  const left = { event: 'workerLeft', worker: 'a', reason: 'gone', workers: 1 } as const

  it('prints one JSON object a line, and nothing else, for programs', () => {
    const { display: one, text } = display('json')
    one.say('words')
    one.progress('words')
    one.show(left)
    expect(text()).toBe(`${JSON.stringify(left)}\n`)
  })

  it('says events in words in a pipe, without moving the cursor', () => {
    const { display: one, text } = display('pipe')
    one.progress('passing')
    one.show(left)
    expect(text()).not.toContain('\x1b')
    expect(text()).toContain('left       a (1 now): gone')
  })

  it('tells speed and time to go from the second step on, up to where --steps ends the run', () => {
    const { display: one, text } = display('pipe')
    const from = performance.now()
    const clock = vi.spyOn(performance, 'now')
    const start = {
      event: 'start',
      epochs: 10,
      stepsPerEpoch: 10,
      trainImages: 100,
      steps: 22,
      origin: '',
      run: '',
    }
    one.show({
      ...start,
      ...{ trainImages: 100, testImages: 1, batchSize: 10, parameters: 1, seed: 1, resumedAt: 0 },
    } as RunEvent)
    const step = (step: number, seconds: number, workers: number) => {
      clock.mockReturnValue(from + 20_000 * step)
      const costs = { loss: 1, cost1000: 1, cost5000: 1, accuracy: 0.5, samples: 10 }
      one.show({ event: 'step', step, epoch: 0, seconds, workers, ...costs } as RunEvent)
    }
    step(1, 60, 1)
    step(2, 1, 2)
    clock.mockRestore()
    expect(text()).toContain('– images/s  1 worker  ETA –')
    expect(text()).toContain('10.0 images/s  2 workers  ETA 20 s')
  })

  it('tells the time to go by the work that is left where images are smaller at first', () => {
    const { display: one, text } = display('pipe')
    const from = performance.now()
    const clock = vi.spyOn(performance, 'now')
    const sizes = [
      { from: 0, size: 16 },
      { from: 20, size: 32 },
    ]
    one.show({
      ...{ event: 'start', epochs: 4, stepsPerEpoch: 10, origin: '', run: '', model: '', data: '', sizes },
      ...{ trainImages: 100, testImages: 1, batchSize: 10, parameters: 1, seed: 1, resumedAt: 0 },
    })
    const step = (step: number, seconds: number, size?: number) => {
      clock.mockReturnValue(from + 20_000 * step)
      const costs = { loss: 1, cost1000: 1, cost5000: 1, accuracy: 0.5, samples: 10, workers: 1 }
      one.show({ event: 'step', step, epoch: 0, seconds, size, ...costs } as RunEvent)
    }
    for (let i = 1; i <= 20; i++) step(i, 1, 16)
    for (let i = 21; i <= 24; i++) step(i, 4)
    clock.mockRestore()
    const lines = text().split('\n')
    const line = (step: number) => lines.find((one) => one.includes(`step ${step}/10`))
    // 18 steps at a quarter of the cost, 20 at the whole of it; a whole one takes four seconds.
    expect(line(2)).toContain('10.0 images/s  16 px  1 worker  ETA 1 min 38 s')
    const last = lines.findLast((one) => one.includes('step 4/10'))
    expect(last).toMatch(/\d images\/s {2}1 worker {2}ETA 1 min 04 s$/)
  })

  it('tells how long a test still takes, anew for each test', async () => {
    const { display: one, text } = display('terminal')
    const show = (done: number) => one.show({ event: 'evaluating', done, of: 640 })
    show(64)
    // Longer than a line stands.
    await new Promise((resolve) => setTimeout(resolve, 300))
    show(128)
    await new Promise((resolve) => setTimeout(resolve, 300))
    show(64)
    const lines = text().split('\r\x1b[K').slice(1)
    expect(lines[0]).toBe('testing 64 of 640 images')
    expect(lines[1]).toMatch(/^testing 128 of 640 images {2}ETA \d+ s$/)
    expect(lines[2]).toBe('testing 64 of 640 images')
  })

  it('clears its moving line before it says something in a terminal', () => {
    const { display: one, text } = display('terminal')
    one.progress('passing')
    one.say('words')
    expect(text()).toBe('\r\x1b[Kpassing\r\x1b[Kwords\n')
  })
})
