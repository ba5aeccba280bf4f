import type {
  LiveNote,
  LivePhase,
  LiveRun,
  LiveStatus,
  LiveTest,
  LiveVerdict,
  LiveWorker,
  LiveSpeeds,
} from '@convoy/protocol'
import type { RunEvent } from '../../events.ts'
import { Window } from '@convoy/convergence'
import { TimeLeft } from '../time-left.ts'
import { Curves, short, type CurvePoint } from './curves.ts'
import { noteOf } from './notes.ts'

/** Notes that are kept; older ones are in metrics.jsonl. */
const NOTES = 500
/** Seconds of training, and steps, over which images/s is averaged. */
const SPEED_OVER = 10
const SPEED_STEPS = 100
/** Points of a worker's speed that are kept; beyond them, every other one goes. */
const SPEEDS = 1_024

const computes = ({ state }: LiveWorker) => !['compiling', 'left', 'lost'].includes(state)

/** The last steps, for images/s. */
const noSpell = () => ({ steps: [] as { samples: number; seconds: number }[], samples: 0, seconds: 0 })

/** Everything of one run that the page shows, from its events; of bounded size. */
export class History {
  readonly curves = new Curves()
  readonly tests: LiveTest[] = []
  readonly notes: LiveNote[] = []
  readonly speeds: LiveSpeeds = { step: [], names: [], rates: [] }
  about: LiveRun | undefined
  /** The curves at the last step. */
  point: CurvePoint | undefined
  phase: LivePhase = 'waiting'
  workers = 0
  checkpoint: number | null = null
  #step = 0
  #epoch = 0
  #seconds = 0
  #tested = 0
  #verdict: LiveVerdict | null = null
  readonly #cost1000 = new Window(1_000)
  readonly #cost5000 = new Window(5_000)
  readonly #accuracy = new Window(5_000)
  readonly #timeLeft = new TimeLeft()
  #spell = noSpell()
  #skipSpeed = 0
  #speedStride = 1

  /**
   * Takes in an event.
   *
   * @param time When it happened, in milliseconds since 1970.
   * @returns The note that was made of it, if it is worth one.
   */
  hear(event: RunEvent, time: number): LiveNote | undefined {
    this.#timeLeft.hear(event)
    switch (event.event) {
      case 'start':
        this.#hearStart(event)
        break
      case 'step':
        this.#hearStep(event)
        break
      case 'rolledBack':
        this.#step = event.to
        this.#takeBack(event.to)
        this.#epoch = Math.floor(event.to / (this.about?.stepsPerEpoch ?? 1))
        break
      case 'epoch':
        this.#epoch = event.epoch
        this.#seconds = event.seconds
        break
      case 'waiting':
        this.phase = 'waiting'
        break
      case 'evaluating':
        this.phase = 'testing'
        this.#tested = event.done
        break
      case 'test':
        this.#hearTest(event)
        break
      case 'workerJoined':
      case 'workerLeft':
        this.workers = event.workers
        break
      case 'verdict':
        this.#verdict = { step: event.step, verdict: event.verdict, reason: event.reason }
        break
      case 'diverged':
        this.phase = 'diverged'
        break
      case 'checkpoint':
        this.checkpoint = event.step
        break
      case 'done':
        this.phase = event.finished ? 'finished' : 'stopped'
        this.#seconds = event.seconds
        break
    }
    const made = noteOf(event)
    if (!made) return undefined
    const note: LiveNote = { time, step: 'step' in event ? event.step : this.#step, ...made }
    this.notes.push(note)
    if (this.notes.length > 2 * NOTES) this.notes.splice(0, NOTES)
    return note
  }

  #hearStart(event: Extract<RunEvent, { event: 'start' }>): void {
    const { model, parameters, data, trainImages, testImages, epochs, stepsPerEpoch, batchSize, seed } = event
    this.about = {
      ...{ model, parameters, data, trainImages, testImages, epochs, stepsPerEpoch, batchSize, seed },
      totalSteps: Math.min(epochs * stepsPerEpoch, event.steps ?? Infinity),
      ...(event.sizes ? { sizes: event.sizes } : {}),
      ...(event.rounds ? { rounds: event.rounds } : {}),
    }
    this.#step = event.resumedAt
    this.#takeBack(event.resumedAt)
    this.#epoch = Math.floor(event.resumedAt / stepsPerEpoch)
    this.phase = 'waiting'
    this.workers = 0
    this.#spell = noSpell()
  }

  #hearTest(event: Extract<RunEvent, { event: 'test' }>): void {
    while (this.tests.length > 0 && this.tests.at(-1)!.step >= event.step) this.tests.pop()
    this.tests.push({
      step: event.step,
      epoch: event.epoch,
      accuracy: short(event.testAccuracy),
      cost: short(event.testLoss),
    })
    if (this.phase === 'testing') this.phase = 'training'
  }

  #hearStep(event: Extract<RunEvent, { event: 'step' }>): void {
    const { step, samples, seconds } = event
    // What JSON could not hold was not finite.
    const loss = (event.loss as number | null) ?? NaN
    if (step <= this.#step) this.#takeBack(step - 1)
    this.#step = step
    this.#epoch = event.epoch
    this.#seconds += seconds
    this.workers = event.workers
    this.phase = 'training'
    const spell = this.#spell
    spell.steps.push({ samples, seconds })
    spell.samples += samples
    spell.seconds += seconds
    while (spell.steps.length > SPEED_STEPS || spell.seconds - spell.steps[0].seconds > SPEED_OVER) {
      const left = spell.steps.shift()!
      spell.samples -= left.samples
      spell.seconds -= left.seconds
    }
    const cost1000 = this.#cost1000.add(step, loss, samples)
    const cost5000 = this.#cost5000.add(step, loss, samples)
    this.point = {
      // The metrics of older runs have only the cost of each batch.
      cost1000: event.cost1000 ?? cost1000,
      cost5000: event.cost5000 ?? cost5000,
      trainAccuracy: this.#accuracy.add(step, event.accuracy, samples),
      learningRate: event.learningRate,
      imagesPerSecond: spell.samples / spell.seconds,
    }
    this.curves.push(step, this.point)
  }

  /** Takes back what came after a step: a run that was killed does again what came after its last checkpoint. */
  #takeBack(step: number): void {
    while (this.tests.length > 0 && this.tests.at(-1)!.step > step) this.tests.pop()
    this.curves.cutFrom(step + 1)
    const { speeds } = this
    while (speeds.step.length > 0 && speeds.step.at(-1)! > step) {
      speeds.step.pop()
      speeds.rates.forEach((rates) => rates.pop())
    }
  }

  /** Keeps how fast each worker is. */
  hearSpeeds(workers: readonly LiveWorker[]): void {
    const { speeds } = this
    if (this.#step === 0 || this.#step === speeds.step.at(-1)) return
    if (this.#skipSpeed++ % this.#speedStride !== 0) return
    for (const { name } of workers) {
      if (speeds.names.includes(name) || speeds.names.length >= 32) continue
      speeds.names.push(name)
      speeds.rates.push(speeds.step.map(() => null))
    }
    speeds.step.push(this.#step)
    speeds.names.forEach((name, i) => {
      const worker = workers.find((one) => one.name === name)
      speeds.rates[i].push(worker && computes(worker) ? short(worker.imagesPerSecond) : null)
    })
    if (speeds.step.length < SPEEDS) return
    this.#speedStride *= 2
    const even = (_: unknown, i: number) => i % 2 === 0
    speeds.step = speeds.step.filter(even)
    speeds.rates = speeds.rates.map((rates) => rates.filter(even))
  }

  /** Notes from oldest to newest. */
  lastNotes(): LiveNote[] {
    return this.notes.slice(-NOTES)
  }

  status(bytes: { sent: number; received: number }): LiveStatus {
    const { point } = this
    const over = ['finished', 'stopped', 'diverged', 'interrupted'].includes(this.phase)
    return {
      phase: this.phase,
      step: this.#step,
      epoch: this.#epoch,
      cost1000: short(point?.cost1000 ?? NaN),
      cost5000: short(point?.cost5000 ?? NaN),
      trainAccuracy: short(point?.trainAccuracy ?? NaN),
      learningRate: short(point?.learningRate ?? NaN),
      imagesPerSecond: short(point?.imagesPerSecond ?? NaN),
      seconds: Math.round(this.#seconds),
      eta: over ? null : short(this.#timeLeft.seconds),
      workers: this.workers,
      bytesSent: bytes.sent,
      bytesReceived: bytes.received,
      tested: this.#tested,
      verdict: this.#verdict,
      checkpoint: this.checkpoint,
    }
  }
}
