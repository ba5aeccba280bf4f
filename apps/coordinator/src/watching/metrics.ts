import { Counter, Gauge, Registry } from 'prom-client'
import type { Cluster } from '../cluster/index.ts'
import { SILENT, type RunEvent } from '../events.ts'

/** Workers that are counted under their own names. */
const MOST_LABELS = 1_024

/** What `Metrics` looks at when it is read; the rest it hears as events. */
export interface Watched {
  readonly cluster: Cluster
  /** See `WorkersWanted`; undefined until it was measured. */
  workersWanted(): number | undefined
}

/** The run's figures for Prometheus. Names follow https://prometheus.io/docs/practices/naming/. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #gauges = new Map<string, Gauge>()
  readonly #counters = new Map<string, Counter>()
  readonly #watched: Watched
  /** The workers that have figures of their own. */
  readonly #workers = new Set<string>()
  /** Height and width of the run's images in full, where some are smaller. */
  #fullSize: number | undefined

  constructor(watched: Watched) {
    this.#watched = watched
    const gauge = (name: string, help: string, ...labelNames: string[]) => {
      const made = new Gauge({ name: `convoy_${name}`, help, labelNames, registers: [this.#registry] })
      this.#gauges.set(name, made)
      // What is not known yet is not 0: an autoscaler would send workers away while a coordinator starts again.
      if (labelNames.length === 0) made.remove()
    }
    const counter = (name: string, help: string, ...labelNames: string[]) => {
      const made = new Counter({ name: `convoy_${name}`, help, labelNames, registers: [this.#registry] })
      this.#counters.set(name, made)
      if (labelNames.length === 0) made.inc(0)
    }
    gauge('step', 'Updates done in the run; with --replicas, rounds.')
    gauge('epoch', 'Epochs done in the run.')
    gauge('loss', 'Mean cost of the last batch before its update, in nats.')
    gauge('cost', 'Mean cost of the last samples before their updates, in nats.', 'samples')
    gauge('verdict', 'What the cost curve says: 1 for the verdict that holds.', 'verdict')
    gauge('accuracy', 'Share of the last batch that was right before its update.')
    gauge('test_accuracy', 'Accuracy on the test set when it was tested last.')
    gauge('test_loss', 'Mean cost on the test set when it was tested last, in nats.')
    gauge('learning_rate', 'Learning rate of the last update.')
    gauge('gradient_norm', "Global norm of the last mean gradient, or of a round's mean difference.")
    gauge('images_per_second', 'Training images a second in the last update.')
    gauge('image_size', 'With sizes over the run: height and width of the images of the last update.')
    gauge('workers', 'Workers connected.')
    gauge('workers_wanted', 'Workers at which one more is no longer worth it.')
    counter('steps_total', 'Updates done by this process.')
    counter('samples_total', 'Samples trained on by this process.')
    counter('step_seconds_total', 'Seconds that the updates of this process took.')
    counter(
      'step_phase_seconds_total',
      'Of them, by phase: compute (the slowest worker), update (the coordinator), wire (the rest).',
      'phase',
    )
    counter('worker_samples_total', 'Samples whose gradients were taken from it, by worker.', 'worker')
    counter('worker_waited_seconds_total', 'Seconds for which updates waited for nobody else.', 'worker')
    counter('wasted_samples_total', 'Samples whose gradients were computed but not needed.')
    counter('wire_bytes_total', 'Bytes to and from the workers.', 'direction')
    counter(
      'refused_total',
      'Answers, messages, requests and connections refused, by the code of the reason.',
      'code',
    )
    counter('stalls_total', 'Deadlines that passed, by worker.', 'worker')
    counter('set_aside_total', 'Times a worker was set aside, by worker.', 'worker')
    counter('workers_lost_total', 'Workers that left or were lost.')
    counter('checkpoints_total', 'Checkpoints written.')
    counter('checkpoints_failed_total', 'Checkpoints that could not be written.')
    counter('rollbacks_total', 'Times the training went back to an earlier state.')
  }

  #set(name: string, value: number, labels: Record<string, string> = {}): void {
    this.#gauges.get(name)!.set(labels, value)
  }

  #add(name: string, value = 1, labels: Record<string, string> = {}): void {
    this.#counters.get(name)!.inc(labels, value)
  }

  hear(event: RunEvent): void {
    switch (event.event) {
      case 'start':
        this.#set('step', event.resumedAt)
        this.#set('epoch', Math.floor(event.resumedAt / event.stepsPerEpoch))
        this.#fullSize = event.sizes?.at(-1)!.size
        break
      case 'step': {
        const size = event.size ?? this.#fullSize
        this.#set('step', event.step)
        this.#set('loss', event.loss)
        this.#set('cost', event.cost1000, { samples: '1000' })
        this.#set('cost', event.cost5000, { samples: '5000' })
        this.#set('accuracy', event.accuracy)
        this.#set('learning_rate', event.learningRate)
        this.#set('gradient_norm', event.gradientNorm)
        this.#set('images_per_second', event.samples / event.seconds)
        if (size !== undefined) this.#set('image_size', size)
        this.#add('steps_total')
        this.#add('samples_total', event.samples)
        this.#add('step_seconds_total', event.seconds)
        this.#addPhases(event)
        break
      }
      case 'verdict':
        this.#gauges.get('verdict')!.reset()
        this.#set('verdict', 1, { verdict: event.verdict })
        break
      case 'epoch':
        this.#set('epoch', event.epoch)
        break
      case 'test':
        this.#set('test_accuracy', event.testAccuracy)
        this.#set('test_loss', event.testLoss)
        break
      case 'refused':
        this.refused(event.code)
        break
      case 'workerStalled':
        this.#add('stalls_total', 1, { worker: this.#label(event.worker) })
        break
      case 'setAside':
        this.#add('set_aside_total', 1, { worker: this.#label(event.worker) })
        break
      case 'workerLeft':
        this.#add('workers_lost_total')
        if (event.reason === SILENT) this.#add('stalls_total', 1, { worker: this.#label(event.worker) })
        break
      case 'checkpoint':
        this.#add('checkpoints_total')
        break
      case 'checkpointFailed':
        this.#add('checkpoints_failed_total')
        break
      case 'rolledBack':
        this.#set('step', event.to)
        this.#add('rollbacks_total')
        break
    }
  }

  #addPhases({ seconds, computeSeconds, updateSeconds }: Extract<RunEvent, { event: 'step' }>): void {
    const add = (phase: string, value: number) => this.#add('step_phase_seconds_total', value, { phase })
    add('compute', computeSeconds)
    add('update', updateSeconds)
    // Engines measure by clocks of their own.
    add('wire', Math.max(0, seconds - computeSeconds - updateSeconds))
  }

  /** Counts something that was refused. */
  refused(code: string): void {
    this.#add('refused_total', 1, { code })
  }

  /** A worker's name, as long as there are not so many that each would cost memory here and in Prometheus. */
  #label(worker: string): string {
    if (this.#workers.size >= MOST_LABELS && !this.#workers.has(worker)) return 'others'
    this.#workers.add(worker)
    return worker
  }

  /** The figures in Prometheus's text format. */
  async text(): Promise<string> {
    const { cluster } = this.#watched
    this.#set('workers', cluster.size)
    const wanted = this.#watched.workersWanted()
    if (wanted !== undefined && Number.isFinite(wanted)) this.#set('workers_wanted', wanted)
    const { sent, received } = cluster.traffic
    const advance = (name: string, to: number, labels: Record<string, string> = {}) => {
      const before = this.#seen.get(name + JSON.stringify(labels)) ?? 0
      this.#add(name, Math.max(0, to - before), labels)
      this.#seen.set(name + JSON.stringify(labels), to)
    }
    advance('wire_bytes_total', sent, { direction: 'sent' })
    advance('wire_bytes_total', received, { direction: 'received' })
    advance('wasted_samples_total', cluster.wasted)
    for (const [worker, { samples, waitedFor }] of cluster.tallies) {
      advance('worker_samples_total', samples, { worker })
      advance('worker_waited_seconds_total', waitedFor, { worker })
    }
    return this.#registry.metrics()
  }

  /** What counters that are kept elsewhere were when they were read last. */
  readonly #seen = new Map<string, number>()
  static readonly type = Registry.PROMETHEUS_CONTENT_TYPE
}
