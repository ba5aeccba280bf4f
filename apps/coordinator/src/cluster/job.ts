import type { MessageOf, WorkerMessage } from '@convoy/protocol'
import type { Encoding } from '@convoy/reduction'

export type Tail = MessageOf<WorkerMessage, 'tail'>
export type Gradient = MessageOf<WorkerMessage, 'gradient'>
export type Answer = Gradient | MessageOf<WorkerMessage, 'evaluation'>

/** What a sample that is evaluated costs beside one whose gradient is computed: one convolution a layer instead of three. */
export const FORWARD_COST = 1 / 3

/** One pass over the workers: the gradient of a batch, the differences of a round, or the evaluation of a test set. */
export interface Job {
  readonly task: 'gradient' | 'evaluate'
  readonly epoch: number
  readonly step: number
  /** Leaves of the batch, replicas of the round, or chunks of the test set. */
  readonly units: number
  /** The number of the first, where they are a node of another's job. */
  readonly first?: number
  /** The largest node that is handed out whole. */
  readonly largest: number
  /** That for a relay, which rounds parts of a node itself. */
  readonly largestSum?: number
  /** Larger nodes that are smaller than this are shorter on the wire in parts, which are rounded, than as their sum. */
  readonly leastSum?: number
  /** Whether all is planned at once by measured speed (a batch) or handed out bit by bit (a test set). */
  readonly planned: boolean
  /** Height and width that images are made smaller to, where they are. */
  readonly size: number | undefined
  /** What a sample costs beside the gradient of one of full size: workers' speed is measured in these. */
  readonly cost: number
  /** What is to be known of a round, where it is one. */
  readonly round?: { readonly step: number; readonly rates: readonly number[] } | undefined
  /** Where gradients may be cut, to come in two frames; 0 or left out where they may not. */
  readonly cut?: number
  /** How many samples leaves [lo, hi) have. */
  samples(lo: number, hi: number): number
  /** How the answer to [lo, hi) travels. */
  encoding(lo: number, hi: number): Encoding
  /** What a worker needs to compute [lo, hi): the rest of the `work` message, and its payloads. */
  request(lo: number, hi: number, withSamples: boolean): WorkRequest
  /** Takes an answer. Throws a `ConvoyError` where it is not usable; then nothing is taken. */
  accept(answer: Answer, payload: Uint8Array, worker: string): void
  /** Takes what is behind the cut of an answer that is to come. Throws as `accept` does. */
  acceptTail?(tail: Tail, payload: Uint8Array): void
}

export interface WorkRequest {
  readonly pixels: 'uint8' | 'float32' | 'none'
  readonly payloads: readonly ArrayBufferView[]
}
