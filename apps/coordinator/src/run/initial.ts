import { ConvoyError } from '@convoy/errors'
import { initialise, parameterLayout, type ModelSpec } from '@convoy/model'
import {
  encodeSafetensors,
  matchWeights,
  requireFinite,
  networkSpec,
  readWeights,
  type Placement,
  type WeightsFile,
} from '@convoy/weights'
import path from 'node:path'
import { exists, readCheckpoint, writeDurably, type Checkpoint } from './checkpoints.ts'
import type { TrainingConfig } from '../config.ts'
import { parametersSha256 } from '../training/index.ts'

/** A checkpoint's parameters, as those of any weights file. Throws E_WEIGHTS_FILE where it does not say of which network. */
export function checkpointWeights(checkpoint: Checkpoint, file: string): WeightsFile {
  const network = networkSpec.safeParse(checkpoint.network)
  if (!network.success) {
    throw new ConvoyError(
      'E_WEIGHTS_FILE',
      `${file} does not say of which network it is: an older version of Convoy wrote it`,
      'Go on with its run for a step with this version; the next checkpoint says it.',
    )
  }
  const { views } = parameterLayout(network.data.model)
  const tensor = ({ name, shape, offset, size }: (typeof views)[number]) => ({
    name,
    shape,
    values: checkpoint.parameters.slice(offset, offset + size),
  })
  const layers = views.flatMap((view, i) =>
    view.role === 'kernel'
      ? [{ name: view.name.replace(/\/kernel$/, ''), tensors: [tensor(view), tensor(views[i + 1])] }]
      : [],
  )
  return { format: `checkpoint of step ${checkpoint.step}`, layers, turned: 'no', network: network.data }
}

/** Reads weights of any format: a checkpoint, Keras, TensorFlow.js or safetensors. Throws E_WEIGHTS_FILE or E_CHECKPOINT. */
export async function readAnyWeights(file: string): Promise<WeightsFile> {
  if (!file.endsWith('.convoy')) return readWeights(file)
  return checkpointWeights(await readCheckpoint(file), file)
}

/** What a run starts from. */
export interface Initial {
  readonly parameters: Float32Array
  /** Where weights were given: where they come from, and the SHA-256 of what the run starts from. */
  readonly from?: {
    readonly format: string
    readonly table: readonly Placement[]
    readonly sha256: string
  }
}

/** The weights that a run started from, kept beside it so that it can go on without the file. */
const KEPT = 'init.safetensors'

/**
 * The parameters that a run starts from: drawn from the seed, or those of `--init`; there, a last layer for another
 * number of classes is drawn from the seed. Throws E_WEIGHTS_FILE and E_WEIGHTS_FIT.
 *
 * @param directory The run's folder, which keeps them.
 */
export async function initialParameters(
  { init, initialisation, seed }: TrainingConfig,
  model: ModelSpec,
  directory: string,
): Promise<Initial> {
  const drawn = initialise(model, initialisation, seed)
  if (init === undefined) return { parameters: drawn }
  const kept = path.join(directory, KEPT)
  // A run goes on also where the file is gone.
  const source = !(await exists(init)) && (await exists(kept)) ? kept : init
  const file = await readAnyWeights(source)
  const { parameters, table, anew } = matchWeights(file, model, { newHead: true })
  requireFinite(parameters, model, source)
  for (const { offset, size } of anew) parameters.set(drawn.subarray(offset, offset + size), offset)
  // Another file under the name of this run is for the run to refuse.
  if (!(await exists(kept)))
    await writeDurably(kept, encodeSafetensors(parameterLayout(model), parameters, { model }))
  return { parameters, from: { format: file.format, table, sha256: parametersSha256(parameters) } }
}
