import { TimeLeft, type RunEvent } from '@convoy/coordinator'
import type { Logger } from 'pino'
import { eventText, stepOf } from './event-text.ts'
import { counted, duration, grouped } from './format.ts'

/** Milliseconds between progress lines: in a terminal it is one line that changes, in a pipe a new line each time. */
const REDRAW = 100
const PIPE_EVERY = 10_000

/** How events reach a person or a program. */
export type Style = 'terminal' | 'pipe' | 'json'

/** How to write to standard output, given where it goes. */
export function styleFor(json: boolean | undefined): Style {
  return json ? 'json' : process.stdout.isTTY ? 'terminal' : 'pipe'
}

/** Events that an operator should look at; all others have the level `info`. */
const levels: Partial<Record<RunEvent['event'], 'warn' | 'error'>> = {
  workerStalled: 'warn',
  refused: 'warn',
  setAside: 'warn',
  muted: 'warn',
  disputed: 'warn',
  rolledBack: 'warn',
  mixed: 'warn',
  slowEngine: 'warn',
  checkpointPassedOver: 'warn',
  checkpointFailed: 'error',
  logFailed: 'error',
  dishonest: 'error',
  diverged: 'error',
}

function levelOf(event: RunEvent): 'info' | 'warn' | 'error' {
  // A worker that said that it would leave is no fault.
  if (event.event === 'workerLeft') return event.reason === 'left' ? 'info' : 'warn'
  return levels[event.event] ?? 'info'
}

/**
 * Shows what happens in a run: one moving line in a terminal, a quiet log in a pipe, one JSON object a line, or a log
 * of JSON lines.
 */
export class Display {
  readonly #style: Style
  readonly #out: NodeJS.WritableStream
  readonly #log: Logger | undefined
  #start: Extract<RunEvent, { event: 'start' }> | undefined
  #shownAt = 0
  #lineShown = false
  readonly #timeLeft = new TimeLeft()
  /** Averages that forget: the accuracy of about the last thousand samples, and the time for a sample of the last ten steps. */
  #accuracy = NaN
  #secondsPerSample = NaN
  /** Steps seen in this session. */
  #steps = 0
  /** The first answer of the test that is under way: images done, and when. */
  #testing = { done: Infinity, at: 0 }

  /** @param log Takes everything instead of `out`, in words with their event's fields. */
  constructor(style: Style, out: NodeJS.WritableStream, log?: Logger) {
    this.#style = log ? 'pipe' : style
    this.#out = out
    this.#log = log
  }

  /** A line for a person; nothing in JSON. */
  say(text: string): void {
    if (this.#style === 'json') return
    this.#clear()
    this.#write(text)
  }

  /** A passing progress line, such as of a download. */
  progress(text: string, event?: RunEvent): void {
    if (this.#style === 'json') return
    const now = performance.now()
    if (now - this.#shownAt < (this.#style === 'terminal' ? REDRAW : PIPE_EVERY)) return
    this.#shownAt = now
    if (this.#style === 'terminal') {
      this.#out.write(`\r\x1b[K${text}`)
      this.#lineShown = true
    } else this.#write(text, event)
  }

  show(event: RunEvent): void {
    if (this.#style === 'json') {
      if (event.event !== 'evaluating' && event.event !== 'preparing')
        this.#out.write(`${JSON.stringify(event)}\n`)
      return
    }
    const text = this.#text(event)
    if (this.#log && text !== undefined) this.#write(text, event)
    else if (text !== undefined) this.say(text)
  }

  #write(text: string, event?: RunEvent): void {
    if (this.#log) this.#log[event ? levelOf(event) : 'info'](event ?? {}, text.trim().replace(/\s+/g, ' '))
    else this.#out.write(`${text}\n`)
  }

  #clear(): void {
    if (this.#lineShown) this.#out.write('\r\x1b[K')
    this.#lineShown = false
  }

  #text(event: RunEvent): string | undefined {
    this.#timeLeft.hear(event)
    switch (event.event) {
      case 'start':
        this.#start = event
        break
      case 'preparing':
        this.progress(event.text, event)
        return undefined
      case 'step':
        return this.#step(event)
      case 'evaluating':
        this.progress(
          `testing ${grouped(event.done)} of ${grouped(event.of)} images${this.#testLeft(event)}`,
          event,
        )
        return undefined
      case 'checkpoint':
        // Of use to whoever reads a log; a person is only told where none could be written.
        if (!this.#log) return undefined
        break
    }
    return eventText(event, this.#start)
  }

  /** The time that a test still takes, once some of it is done. */
  #testLeft({ done, of }: Extract<RunEvent, { event: 'evaluating' }>): string {
    const now = performance.now()
    if (done <= this.#testing.done) {
      this.#testing = { done, at: now }
      return ''
    }
    const speed = (done - this.#testing.done) / (now - this.#testing.at)
    return `  ETA ${duration((of - done) / speed / 1000)}`
  }

  #step(event: Extract<RunEvent, { event: 'step' }>): undefined {
    const blend = (old: number, value: number, share: number) =>
      Number.isNaN(old) ? value : old + share * (value - old)
    const share = Math.min(1, event.samples / 1_000)
    this.#accuracy = blend(this.#accuracy, event.accuracy, share)
    // The first step of a session warms up, and would spoil the speed for a while.
    if (this.#steps > 0) {
      const weight = Math.max(0.1, 1 / this.#steps)
      this.#secondsPerSample = blend(this.#secondsPerSample, event.seconds / event.samples, weight)
    }
    this.#steps++
    const speed = this.#steps > 1 ? `${(1 / this.#secondsPerSample).toFixed(1)} images/s` : '– images/s'
    const eta = duration(this.#steps > 1 ? this.#timeLeft.seconds : NaN)
    const size = event.size === undefined ? '' : `  ${event.size} px`
    const { epochs = 0, stepsPerEpoch = 1, steps = Infinity } = this.#start ?? {}
    const workers = counted(event.workers, 'worker')
    const inEpoch = ((event.step - 1) % stepsPerEpoch) + 1
    const filled = Math.round((20 * event.step) / Math.min(epochs * stepsPerEpoch, steps))
    const bar = this.#style === 'terminal' ? `${'█'.repeat(filled)}${'░'.repeat(20 - filled)} ` : ''
    this.progress(
      `${bar}epoch ${event.epoch + 1}/${epochs} ${stepOf(this.#start)} ${inEpoch}/${stepsPerEpoch}  loss ${event.cost1000.toFixed(4)}  accuracy ${(100 * this.#accuracy).toFixed(1)} %  ${speed}${size}  ${workers}  ETA ${eta}`,
      event,
    )
    return undefined
  }
}
