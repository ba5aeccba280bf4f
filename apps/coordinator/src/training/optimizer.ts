import type { Arena } from '@convoy/arena'
import { ConvoyError } from '@convoy/errors'
import {
  muonKernels,
  standardisedKernels,
  trainedLayout,
  type ModelSpec,
  type MuonKernel,
} from '@convoy/model'
import { Muon, NesterovSgd, plain, Standardised, type Optimizer, type Parametrisation } from '@convoy/optim'
import type { TrainingConfig } from '../config.ts'

/** Newton–Schulz iterations of an update of Muon: three learn as fast as the five of Jordan et al. (2024). */
const ITERATIONS = 3

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

/** How Muon treats the kernels of a model. */
export function muonKernelsOf(model: ModelSpec, config: TrainingConfig): MuonKernel[] {
  const { init, whitenedStart = false, headRate = 1 } = config
  const fresh = init === undefined
  return muonKernels(model, { whitened: fresh && whitenedStart, lastRate: headRate, held: fresh })
}

/** What the optimizer of a config moves. */
export function parametrisationOf(arena: Arena, model: ModelSpec, config: TrainingConfig): Parametrisation {
  return config.parametrisation === 'standardised'
    ? new Standardised(arena, standardisedKernels(model))
    : plain(arena.size)
}

/**
 * The optimizer that a config describes.
 *
 * @param arena Where it computes: of the size of the trained parameters.
 * @param variables Those of the parametrisation to start with, and the velocity of each.
 */
export function optimizerOf(
  arena: Arena,
  model: ModelSpec,
  config: TrainingConfig,
  parametrisation: Parametrisation,
  variables: Float32Array,
  velocity: Float32Array,
): Optimizer {
  const { momentum, nesterov, weightDecay, clipNorm, biasRate } = config
  const rates = biasRate === undefined ? {} : { biasRate }
  if (config.optimizer === 'muon') {
    const kernels = muonKernelsOf(model, config)
    return new Muon(arena, variables, velocity, {
      ...{ kernels, momentum, clipNorm, iterations: ITERATIONS, ...rates },
    })
  }
  return new NesterovSgd(arena, variables, velocity, {
    ...{ momentum, nesterov, weightDecay, clipNorm, parametrisation },
    // Biases are left out of the decay: it is there to keep the kernels small.
    decayed: trainedLayout(model)
      .views.filter((view) => view.role === 'kernel')
      .map(({ offset, size }) => [offset, size] as const),
    ...rates,
  })
}
