import type { Arena } from '@convoy/arena'
import { ConvoyError } from '@convoy/errors'
import { NesterovSgd, type Optimizer, type OptimizerSpec } from '@convoy/optim'
import type { TrainingConfig } from '../config.ts'

/** Refuses options that the optimizer does not have, so that none is passed over. Throws E_USAGE. */
export function checkOptimizer(config: TrainingConfig): void {
  const { optimizer = 'sgd', weightDecay, headRate, nesterov, parametrisation = 'plain' } = config
  const refuse = (flag: string, why: string) => {
    throw new ConvoyError(
      'E_USAGE',
      `${flag} does not go with --optimizer ${optimizer}: ${why}`,
      'Leave it out.',
    )
  }
  if (optimizer === 'sgd') {
    if (headRate !== undefined) refuse(`--head-rate ${headRate}`, 'all its kernels have one rate')
    return
  }
  if (weightDecay > 0) refuse(`--weight-decay ${weightDecay}`, 'it holds the norm of kernels')
  if (!nesterov) refuse('--no-nesterov', "its momentum is Nesterov's")
  if (parametrisation !== 'plain') refuse(`--parametrisation ${parametrisation}`, 'it moves the kernels')
}

/** The optimizer that a config describes: of the run, or of the steps within its rounds. */
export function optimizerSpecOf(config: TrainingConfig): OptimizerSpec {
  const { optimizer = 'sgd', parametrisation = 'plain', init, whitenedStart = false } = config
  const { momentum, nesterov, weightDecay, clipNorm, biasRate, headRate } = config
  const fresh = init === undefined
  return {
    ...{ optimizer, momentum, nesterov, weightDecay, clipNorm, parametrisation },
    ...(biasRate === undefined ? {} : { biasRate }),
    ...(headRate === undefined ? {} : { headRate }),
    ...{ whitened: fresh && whitenedStart, held: fresh },
  }
}

/**
 * What moves the parameters at the end of a round, by the replicas' mean difference as if it were a gradient: Nesterov's SGD (Douillard et
 * al., "DiLoCo: Distributed Low-Communication Training of Language Models", 2023). At rate 1 without momentum it is averaging.
 */
export function outerOptimizer(
  arena: Arena,
  momentum: number,
  parameters: Float32Array,
  velocity: Float32Array,
): Optimizer {
  // Decay and clipping are for the steps within.
  const options = { nesterov: true, weightDecay: 0, clipNorm: 0, decayed: [] }
  return new NesterovSgd(arena, parameters, velocity, { momentum, ...options })
}
