import type { Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import type { TrainingConfig } from '../config.ts'

/**
 * What decides the result besides the parameters: two runs with the same text and start give the same bits.
 *
 * @param init SHA-256 of the weights that were given, where some were.
 */
export function identityOf(config: TrainingConfig, dataset: Dataset, init: string | undefined): string {
  // Not which file the weights were in, but which weights.
  return JSON.stringify({ ...config, init, data: dataset.fingerprint })
}

/** Throws E_RUN where a checkpoint of the run `name` has another identity. */
export function checkIdentity(name: string, ours: string, theirs: string): void {
  if (theirs === ours) return
  throw new ConvoyError(
    'E_RUN',
    `the run ${name} was started with other settings: ${difference(ours, theirs)}`,
    'Repeat its settings to go on with it, or give this one another --name.',
  )
}

/** Says in words where two identities differ. */
function difference(ours: string, theirs: string): string {
  const a = JSON.parse(ours) as Record<string, unknown>
  const b = JSON.parse(theirs) as Record<string, unknown>
  return Object.keys({ ...a, ...b })
    .filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key]))
    .map((key) => `${key} is ${JSON.stringify(b[key])} there and ${JSON.stringify(a[key])} now`)
    .join('; ')
}
