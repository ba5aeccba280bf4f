import { Writable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { Display, duration, percent } from './display.ts'

describe('duration', () => {
  it.each([
    [0, '0 s'],
    [59.4, '59 s'],
    [61, '1 min 01 s'],
    [3_600, '1 h 00 min'],
    [7_260, '2 h 01 min'],
    [90_000, '1 d 1 h'],
    [NaN, '–'],
    [Infinity, '–'],
  ])('%s s is %s', (seconds, text) => expect(duration(seconds)).toBe(text))
})

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

describe('percent', () => {
  it('has two places', () => expect(percent(0.90916)).toBe('90.92 %'))
})
