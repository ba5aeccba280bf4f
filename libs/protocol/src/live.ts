/**
 * What the coordinator and its web page say to each other on `/live`, as JSON text. Numbers that are not there, or not
 * finite, are null.
 */

/** The curves that are kept for every step. Costs are in nats a sample, accuracies shares of 1. */
export const curveNames = [
  'cost1000',
  'cost5000',
  'trainAccuracy',
  'learningRate',
  'imagesPerSecond',
] as const
export type CurveName = (typeof curveNames)[number]

type Value = number | null

/** Rows in order of `step`; every column has one value a row. */
export type Rows = { step: number[] } & Record<CurveName, Value[]>

/** What a run is, from its beginning on. */
export interface LiveRun {
  model: string
  parameters: number
  data: string
  trainImages: number
  testImages: number
  epochs: number
  stepsPerEpoch: number
  batchSize: number
  /** Where steps are rounds: so many replicas take so many steps by themselves, of `batchSize` samples each. */
  rounds?: { readonly replicas: number; readonly steps: number }
  seed: number
  /** Updates that the run will have. */
  totalSteps: number
  /** Where images are smaller at first: those of the steps after `from` have this height and width. */
  sizes?: readonly { from: number; size: number }[]
}

/** Height and width of a step's images; null where the run says nothing of sizes. */
export function sizeOfStep(about: LiveRun | null | undefined, step: number): Value {
  return about?.sizes?.findLast(({ from }) => from < step)?.size ?? null
}

export interface LiveTest {
  step: number
  epoch: number
  accuracy: Value
  cost: Value
}

export interface LiveVerdict {
  step: number
  verdict: string
  reason: string
}

/** Something that happened, in words. */
export interface LiveNote {
  /** Milliseconds since 1970. */
  time: number
  step: number
  kind: 'run' | 'worker' | 'fault' | 'checkpoint' | 'test' | 'verdict'
  text: string
}

export type LivePhase =
  'training' | 'testing' | 'waiting' | 'finished' | 'stopped' | 'diverged' | 'interrupted'

/** Where a run stands. */
export interface LiveStatus {
  phase: LivePhase
  step: number
  epoch: number
  cost1000: Value
  cost5000: Value
  trainAccuracy: Value
  learningRate: Value
  imagesPerSecond: Value
  /** Seconds of training so far, and still to come at the present speed. */
  seconds: number
  eta: Value
  workers: number
  /** Bytes to and from all workers since the coordinator started. */
  bytesSent: number
  bytesReceived: number
  /** Test images done, while testing. */
  tested: number
  verdict: LiveVerdict | null
  /** Step of the newest checkpoint, which can be downloaded. */
  checkpoint: Value
}

export type LiveWorkerState = 'compiling' | 'ready' | 'stalled' | 'set aside' | 'leaving' | 'left' | 'lost'

/** One worker, since the coordinator started. */
export interface LiveWorker {
  name: string
  engine: string
  state: LiveWorkerState
  /** Share of the samples computed lately. */
  share: number
  imagesPerSecond: number
  /** Share of the time lately in which the step waited for nobody but this worker. */
  blame: number
  samples: number
  stalls: number
  refused: number
  bytesSent: number
  bytesReceived: number
}

/** Images/s by worker over the steps of this session; `rates[i]` belongs to `names[i]`. */
export interface LiveSpeeds {
  step: number[]
  names: string[]
  rates: Value[][]
}

export interface LiveHistory {
  run: string
  current: boolean
  about: LiveRun | null
  status: LiveStatus
  rows: Rows
  tests: LiveTest[]
  notes: LiveNote[]
  speeds: LiveSpeeds
  /** False where it was made of pieces of the run's file, to be asked for again. */
  whole: boolean
  /** Those of this session; none where the run is not trained here. */
  workers: LiveWorker[]
}

/** A line in the list of runs. */
export interface LiveSummary {
  name: string
  current: boolean
  /** When it last wrote something, in milliseconds since 1970. */
  time: number
  model: string
  step: number
  epoch: number
  testAccuracy: Value
  finished: boolean
}

export type LiveMessage =
  /** The page must show the token first. */
  | { kind: 'token'; reason: string }
  | { kind: 'welcome'; build: string; run: string }
  | { kind: 'history'; id: number; history: LiveHistory }
  | { kind: 'missing'; id: number; reason: string }
  | { kind: 'runs'; id: number; runs: LiveSummary[] }
  /** What happened since the last update or history. */
  | {
      kind: 'update'
      rows: Rows
      tests: LiveTest[]
      notes: LiveNote[]
      status: LiveStatus
      workers: LiveWorker[]
    }

export type PageMessage =
  | { kind: 'hello'; token?: string }
  /** Asks for a run's steps `from` to `to` (null: to the end), in at most `points` pixels. */
  | {
      kind: 'history'
      id: number
      run: string
      from: number
      to: number | null
      points: number
      /** Whether to wait until all of a long run is read. */
      whole: boolean
    }
  | { kind: 'runs'; id: number }
