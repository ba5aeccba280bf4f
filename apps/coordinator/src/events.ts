import type { Verdict } from '@convoy/convergence'
import type { SizeChange } from '@convoy/data'
import { SILENCE } from '@convoy/protocol'
import type { NumericsClass } from './numerics.ts'

/** What the coordinator runs on. */
export interface Machine {
  readonly cpu: string
  readonly cores: number
  /** Bytes. */
  readonly memory: number
  readonly system: string
  readonly node: string
  readonly convoy: string
}

/** Everything that happens in a run that someone might want to see: progress, logs, metrics and pages are made of it. */
export type RunEvent =
  | {
      event: 'start'
      run: string
      model: string
      parameters: number
      data: string
      origin: string
      trainImages: number
      testImages: number
      epochs: number
      stepsPerEpoch: number
      /** What the whole run costs, in epochs of full-size images; not in the metrics of older runs. */
      work?: number
      /** With --sizes: images have this size (height and width) in the steps after `from`; the last is their own. */
      sizes?: readonly SizeChange[]
      /** The step at which --steps ends the run. */
      steps?: number
      batchSize: number
      /** Where steps are rounds: so many replicas take so many steps by themselves, of `batchSize` samples each. */
      rounds?: { readonly replicas: number; readonly steps: number }
      seed: number
      resumedAt: number
      /** SHA-256 of the data set; this and the next are not in the metrics of older runs. */
      fingerprint?: string
      machine?: Machine
    }
  /** Before the start: a line of progress for a person. */
  | { event: 'preparing'; text: string }
  /** Before the start: this machine computes more slowly than it could; why, and what to do, in a sentence. */
  | { event: 'slowEngine'; reason: string }
  /** The run starts from given weights: what went where; a layer `from` nowhere starts anew. */
  | {
      event: 'initialised'
      file: string
      format: string
      sha256: string
      layers: readonly { layer: string; shape: readonly number[]; from: string | null }[]
      /** What was done to the weights, in sentences. */
      notes: readonly string[]
    }
  /** Layers are frozen: so many parameters are trained. */
  | { event: 'frozen'; layers: readonly string[]; trained: number; of: number }
  /** Where workers connect, and where the page is; a relay has none. */
  | { event: 'listening'; url: string; dashboard?: string }
  | { event: 'waiting'; reason: string }
  | { event: 'workerJoined'; worker: string; engine: string; workers: number }
  | { event: 'workerLeft'; worker: string; reason: string; workers: number }
  /** A worker is past its deadline: with an answer, or with compiling the model. */
  | { event: 'workerStalled'; worker: string; waited: number; step: number; compiling?: true }
  | { event: 'workerRecovered'; worker: string }
  | { event: 'refused'; worker: string; code: string; message: string }
  | { event: 'setAside'; worker: string; seconds: number; code: string }
  /** So many events of a kind were left out, since peers brought about too many of them. */
  | { event: 'muted'; of: RunEvent['event']; count: number }
  /** A worker's answer was not the one that two others gave. A relay that is `warned` stays, and checks its workers from then on. */
  | { event: 'dishonest'; worker: string; step: number; lo: number; hi: number; warned?: true }
  /** Answers to a node differ, and nobody is there who could tell who is right. */
  | { event: 'disputed'; workers: string[]; step: number; lo: number; hi: number }
  | { event: 'diverged'; step: number; reason: string; message: string }
  | { event: 'rolledBack'; from: number; to: number; rateFactor: number; reason: string }
  | { event: 'mixed'; worker: string; first: string; other: string }
  | {
      event: 'step'
      step: number
      epoch: number
      /** Mean cost of the batch before its update, in nats; of a round, of all batches before the steps on them. */
      loss: number
      /** Mean cost of the last 1,000 and 5,000 samples, each before its update, in nats. */
      cost1000: number
      cost5000: number
      accuracy: number
      /** Of a round: that of the last step within. */
      learningRate: number
      /** Of a round: the norm of its replicas' mean difference. */
      gradientNorm: number
      samples: number
      /** Height and width that the images were made smaller to, where they were. */
      size?: number
      /** What the run cost so far, in epochs of full-size images; not in the metrics of older runs. */
      work?: number
      /** Time since the last step's end, in seconds. */
      seconds: number
      /** Of it, in seconds: the engine's time of the worker that computed longest; the update. The rest is the wire. */
      computeSeconds: number
      updateSeconds: number
      workers: number
    }
  /** Workers waited for the wire during the larger `share` of a step; in such rounds they would compute four times as long as they wait. */
  | { event: 'wireBound'; step: number; share: number; replicas: number; localSteps: number }
  /** What the cost curve says, whenever that changes; see libs/convergence. */
  | {
      event: 'verdict'
      step: number
      epoch: number
      verdict: Verdict
      reason: string
      cost1000: number
      cost5000: number
    }
  | {
      event: 'epoch'
      epoch: number
      step: number
      trainLoss: number
      trainAccuracy: number
      samples: number
      /** Samples of the epoch that were applied exactly once: all of them, or the run stops. */
      exactlyOnce: number
      seconds: number
    }
  | { event: 'evaluating'; done: number; of: number }
  | {
      event: 'test'
      epoch: number
      step: number
      testLoss: number
      testAccuracy: number
      seconds: number
      /** With --until: the epoch at which its accuracy is expected, null while the tests do not say. */
      expectedEpoch?: number | null
    }
  | { event: 'checkpoint'; step: number; path: string }
  | { event: 'checkpointFailed'; step: number; message: string }
  | { event: 'checkpointPassedOver'; path: string; message: string }
  /** A file that grows line by line cannot be written; its lines are kept for when it can. */
  | { event: 'logFailed'; file: string; message: string }
  | {
      event: 'done'
      run: string
      parametersSha256: string
      step: number
      epoch: number
      /** What the run cost, in epochs of full-size images. */
      work: number
      imagesPerSecond: number
      /** Mean cost over the last whole epoch, before each update; null before there is one. */
      trainLoss: number | null
      testAccuracy: number | null
      seconds: number
      mixed: boolean
      numerics: NumericsClass | null
      finished: boolean
      /** With --until: whether its accuracy was reached, and what was trained until then; seconds without the tests. */
      until?: {
        accuracy: number
        reached: boolean
        epochs: number
        seconds: number
        samples: number
        work: number
      }
    }

/** The reason of a `workerLeft` whose worker had said that it would leave. */
export const LEFT = 'left'
/** The reason of a `workerLeft` whose worker gave no sign of life for as long as is waited for one. */
export const SILENT = `silent for ${SILENCE / 1000} s`
/** The reason of a `waiting` in which nothing is wrong yet. */
export const FOR_WORKERS = 'for workers to come'

export type Report = (event: RunEvent) => void
