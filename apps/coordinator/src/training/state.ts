import { createHash } from 'node:crypto'
import type { GuardState } from './divergence.ts'

/** Where training stands: all that changes from step to step. */
export interface Progress {
  /** Updates done. */
  step: number
  /** Epochs done. */
  epoch: number
  /** Sums over the samples of the running epoch. */
  epochLoss: number
  epochCorrect: number
  epochSamples: number
  /** Seconds of training so far, in all sessions. */
  seconds: number
  /** What the schedule's rate is multiplied by. */
  rateFactor: number
  /** The step from which on that is so; undefined where the rate was never lowered. */
  loweredAt?: number | undefined
  guard: GuardState
}

/** What updates move, as a state keeps it: float32. */
export interface Moved {
  /** One for each parameter. */
  readonly parameters: Float32Array
  /** What the trained parameters are made of, where the optimizer moves something else than these. */
  readonly variables?: Float32Array | undefined
  /** v: one for each variable where there are some, else one for each parameter, 0 for those that are frozen. */
  readonly velocity: Float32Array
}

/** A state to start from; what it does not say is as at the beginning. */
export interface State extends Partial<Progress>, Partial<Moved> {
  readonly parameters: Float32Array
}

export function progressOf(start: State): Progress {
  const { step = 0, epoch = 0, epochLoss = 0, epochCorrect = 0, epochSamples = 0, seconds = 0 } = start
  const { rateFactor = 1, guard = { sum: 0, samples: 0, windows: 0, best: null } } = start
  const { loweredAt } = start
  return {
    ...{ step, epoch, epochLoss, epochCorrect, epochSamples, seconds, rateFactor, loweredAt },
    guard: { ...guard },
  }
}

/** Whether an epoch has just ended. */
export function betweenEpochs({ step, epochSamples }: Progress): boolean {
  return step > 0 && epochSamples === 0
}

/** SHA-256 in hex over the parameters as little-endian float32. */
export function parametersSha256(parameters: Float32Array): string {
  return createHash('sha256')
    .update(new Uint8Array(parameters.buffer, parameters.byteOffset, parameters.byteLength))
    .digest('hex')
}
