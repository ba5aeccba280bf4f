import type { Arena } from '@convoy/arena'
import { gradientCut, muonKernels, standardisedKernels, trainedLayout, type ModelSpec } from '@convoy/model'
import { z } from 'zod'
import { Muon, type MuonKernel } from './muon.ts'
import { NesterovSgd } from './nesterov.ts'
import type { Optimizer } from './optimizer.ts'
import { plain, wholeParts, type Parametrisation } from './parametrisation.ts'
import { Standardised } from './standardised.ts'

/** Newton–Schulz iterations of an update of Muon: three learn as fast as the five of Jordan et al. (2024). */
const ITERATIONS = 3

/** An optimizer as data, without what it is for: the same for whoever takes steps of a run. */
export const optimizerSpec = z.strictObject({
  optimizer: z.enum(['sgd', 'muon']),
  /** μ */
  momentum: z.number().min(0).lt(1),
  nesterov: z.boolean(),
  weightDecay: z.number().min(0),
  clipNorm: z.number().min(0),
  /** What the rate is multiplied by for biases; 1 where left out. */
  biasRate: z.number().min(0).optional(),
  /** What Muon's rate is multiplied by for the last layer; 1 where left out. */
  headRate: z.number().min(0).optional(),
  parametrisation: z.enum(['plain', 'standardised']),
  /** For Muon: whether the first layer whitens patches, and stays as it is. */
  whitened: z.boolean(),
  /** For Muon: whether the norms of kernels are held, as they are unless weights were given. */
  held: z.boolean(),
})
export type OptimizerSpec = z.infer<typeof optimizerSpec>

/** How Muon treats the kernels of a model. */
export function muonKernelsOf(
  model: ModelSpec,
  { whitened, held, headRate = 1 }: OptimizerSpec,
): MuonKernel[] {
  return muonKernels(model, { whitened, held, lastRate: headRate })
}

/** What an optimizer moves. */
export function parametrisationOf(arena: Arena, model: ModelSpec, spec: OptimizerSpec): Parametrisation {
  return spec.parametrisation === 'standardised'
    ? new Standardised(arena, standardisedKernels(model))
    : plain(arena.size, wholeParts(arena.size, gradientCut(model)))
}

/**
 * The optimizer of a model.
 *
 * @param arena Where it computes: of the size of the trained parameters.
 * @param variables Those of the parametrisation to start with, and the velocity of each.
 */
export function optimizerOf(
  arena: Arena,
  model: ModelSpec,
  spec: OptimizerSpec,
  parametrisation: Parametrisation,
  variables: Float32Array,
  velocity: Float32Array,
): Optimizer {
  const { momentum, nesterov, weightDecay, clipNorm, biasRate } = spec
  const rates = biasRate === undefined ? {} : { biasRate }
  if (spec.optimizer === 'muon') {
    const kernels = muonKernelsOf(model, spec)
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
