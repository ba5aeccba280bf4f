import { patchStatistics, type Prepared } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { muonKernelsOf, normaliseFilters } from '@convoy/optim'
import {
  copyChannels,
  initialise,
  parameterLayout,
  standardisedKernels,
  whitenFirst,
  type ModelSpec,
} from '@convoy/model'
import {
  difference,
  encodeSafetensors,
  matchWeights,
  requireFinite,
  withPaddingOf,
  networkSpec,
  readWeights,
  type Placement,
  type WeightsFile,
} from '@convoy/weights'
import path from 'node:path'
import { exists, readCheckpoint, writeDurably, type Checkpoint } from './checkpoints.ts'
import type { TrainingConfig } from '../config.ts'
import { optimizerSpecOf, parametersSha256 } from '../training/index.ts'

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
    kind: 'float32',
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
  /** The model, padded as the network that the weights come from. */
  readonly model: ModelSpec
  readonly parameters: Float32Array
  /** Where weights were given: where they come from, and the SHA-256 of what the run starts from. */
  readonly from?: {
    readonly format: string
    readonly table: readonly Placement[]
    /** What was done to the weights, in sentences. */
    readonly notes: readonly string[]
    readonly sha256: string
  }
}

/** What is said where a model is padded otherwise than usual. */
const PADDED = "padded as in PyTorch: as many zeros before as after, where 'same' has the odd one after"

/** The weights that a run started from, kept beside it so that it can go on without the file. */
const KEPT = 'init.safetensors'

/** What a first layer of whitened patches adds to their eigenvalues, so that it does not lift noise (Page 2019 has 1e-2). */
const LEAST_VARIANCE = 1e-2
/** How many images the patches are taken of: 2,000 give the eigenvalues to about a hundredth. */
const WHITENED_IMAGES = 2_000

/** The model with all layers trained: kernels are where they are among all parameters. */
function thawed(model: ModelSpec): ModelSpec {
  const layers = model.layers.map((layer) => (layer.kind === 'conv2d' ? { ...layer, frozen: false } : layer))
  return { ...model, layers }
}

/**
 * Parameters drawn from the seed, and, where the config wants that, a first layer that whitens the images' patches.
 *
 * @param size Height and width of the images that the run begins with.
 */
async function draw(
  config: TrainingConfig,
  model: ModelSpec,
  prepared: Prepared,
  size: number,
): Promise<Float32Array> {
  const { initialisation, seed, identityStart, whitenedStart, optimizer, parametrisation } = config
  const parameters = initialise(model, initialisation, seed)
  if (identityStart) copyChannels(model, parameters)
  if (whitenedStart) {
    const [{ shape }] = parameterLayout(model).views
    const kernel = [shape[0], shape[1]] as const
    const patches = await patchStatistics(prepared, { kernel, size, seed, images: WHITENED_IMAGES })
    whitenFirst(model, parameters, patches, { epsilon: LEAST_VARIANCE, seed })
  }
  if (optimizer === 'muon') {
    normaliseFilters(parameters, muonKernelsOf(thawed(model), optimizerSpecOf(config)))
    // From there on the last layer grows as far as the data want it to.
    const last = parameterLayout(model).views.findLast(({ role }) => role === 'kernel')!
    parameters.fill(0, last.offset, last.offset + last.size)
  }
  if (parametrisation === 'standardised' && config.replicas !== undefined && config.init === undefined) {
    // Where there are no rounds, the optimizer's variables begin like this.
    const kernels = standardisedKernels(thawed(model))
    normaliseFilters(
      parameters,
      kernels.map((kernel) => ({ ...kernel, rate: 1, centred: true, held: true })),
    )
  }
  return parameters
}

/**
 * The parameters that a run starts from: drawn from the seed, or those of `--init`; there, a last layer for another
 * number of classes is drawn from the seed. Throws E_WEIGHTS_FILE and E_WEIGHTS_FIT.
 *
 * @param size Height and width of the images that the run begins with.
 * @param directory The run's folder, which keeps them.
 */
export async function initialParameters(
  config: TrainingConfig,
  built: ModelSpec,
  prepared: Prepared,
  size: number,
  directory: string,
): Promise<Initial> {
  const { init } = config
  const drawn = await draw(config, built, prepared, size)
  if (init === undefined) return { model: built, parameters: drawn }
  const kept = path.join(directory, KEPT)
  // A run goes on also where the file is gone.
  const source = !(await exists(init)) && (await exists(kept)) ? kept : init
  const file = await readAnyWeights(source)
  // What a run has been padded like stays, also where it began before Convoy knew of other paddings.
  const model = withPaddingOf((await exists(kept)) ? await readAnyWeights(kept) : file, built)
  const { parameters, table, anew, notes } = matchWeights(file, model, { newHead: true })
  requireFinite(parameters, model, source)
  for (const { offset, size } of anew) parameters.set(drawn.subarray(offset, offset + size), offset)
  // Another file under the name of this run is for the run to refuse.
  if (!(await exists(kept)))
    await writeDurably(kept, encodeSafetensors(parameterLayout(model), parameters, { model }))
  const other = file.network || !file.described ? undefined : difference(file.described, model)
  const said = [...(model === built ? [] : [PADDED]), ...notes, ...(other === undefined ? [] : [other])]
  const sha256 = parametersSha256(parameters)
  return { model, parameters, from: { format: file.format, table, notes: said, sha256 } }
}
