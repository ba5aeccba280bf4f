import type { Dataset, PreprocessingSpec } from '@convoy/data'
import { buildModel, freeze, type ModelSpec } from '@convoy/model'
import type { Network } from '@convoy/weights'
import type { TrainingConfig } from '../config.ts'

/** The network that a run trains. Throws E_MODEL where it does not fit the data set. */
export function modelFor(config: Omit<TrainingConfig, 'microBatch'>, { shape, classes }: Dataset): ModelSpec {
  const built = buildModel(config.model, {
    input: shape,
    classes: classes.length,
    width: config.width,
    inputDropout: config.inputDropout,
    dropout: config.dropout,
    head: config.head,
  })
  const { labelSmoothing = 0 } = config
  // Workers of a network without it need not know of it.
  const model = labelSmoothing > 0 ? { ...built, labelSmoothing } : built
  return config.freeze === undefined ? model : freeze(model, config.freeze)
}

/** The network as a checkpoint describes it, so that it can be used without the run, whose labels are no part of it. */
export function networkOf(model: ModelSpec, dataset: Dataset, preprocessing: PreprocessingSpec): Network {
  const { labelSmoothing: _, ...network } = model
  return {
    model: network,
    classes: [...dataset.classes],
    // Whitened images are made with the statistics of the whole set, which are not kept.
    ...(preprocessing.kind === 'none' ? {} : { preprocessing }),
  }
}
