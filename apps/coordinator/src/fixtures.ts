import { encodeFrame } from '@convoy/protocol'
import type { Job, SentParameters } from './cluster/index.ts'

// What tests compute.

/** Parameters to compute with. */
export const frame: SentParameters = {
  version: 1,
  bytes: encodeFrame({ kind: 'parameters', step: 1 }),
  retain() {},
  release() {},
}

/** A gradient of three leaves; `accept` may throw. */
export const gradientJob = (step: number, accept: (node: string, worker: string) => void): Job => ({
  ...{ task: 'gradient', planned: true, largest: 64, epoch: 0, step, units: 3, size: undefined, cost: 1 },
  samples: (lo, hi) => hi - lo,
  encoding: () => 'float32',
  request: () => ({ pixels: 'none', payloads: [] }),
  accept: ({ lo, hi }, _, worker) => accept(`${lo}-${hi}`, worker),
})
