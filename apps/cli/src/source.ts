import {
  checkpointWeights,
  CheckpointStore,
  readAnyWeights,
  readCheckpoint,
  type Checkpoint,
} from '@convoy/coordinator'
import { ConvoyError } from '@convoy/errors'
import { buildModel, modelNames, type ModelSpec } from '@convoy/model'
import {
  convolutionsOf,
  difference,
  isOutputsFirst,
  isTorchBorn,
  matchWeights,
  withPaddingOf,
  type KernelOrder,
  type Matched,
  type Network,
  type WeightsFile,
} from '@convoy/weights'
import { readdir, stat } from 'node:fs/promises'
import path from 'node:path'

/** The flags that say which weights to use. */
export interface SourceOptions {
  run?: string
  runs?: string
  checkpoint?: string
  weights?: string
  model?: string
  kernels?: string
  order?: string
}

/** The folder of the newest run. Throws E_RUN where there is none. */
export async function newestRun(runs: string): Promise<string> {
  const found: { directory: string; at: number }[] = []
  for (const name of await readdir(runs).catch(() => [])) {
    const directory = path.join(runs, name)
    const at = await stat(path.join(directory, 'config.json')).catch(() => undefined)
    if (at) found.push({ directory, at: at.mtimeMs })
  }
  const newest = found.sort((a, b) => b.at - a.at)[0]
  if (newest) return newest.directory
  throw new ConvoyError(
    'E_RUN',
    `there is no run under ${runs}`,
    'Train one with ./convoy train, or give --weights FILE.',
  )
}

/** The checkpoint that was asked for, or else the newest good one of a run; and the run's folder. */
export async function openCheckpoint(
  options: SourceOptions,
  say: (text: string) => void,
): Promise<{ checkpoint: Checkpoint; file: string; directory: string }> {
  if (options.checkpoint) {
    const file = options.checkpoint
    const directory = path.dirname(path.dirname(path.resolve(file)))
    return { checkpoint: await readCheckpoint(file), file, directory }
  }
  const runs = options.runs ?? 'runs'
  const directory = options.run ? path.join(runs, options.run) : await newestRun(runs)
  const store = new CheckpointStore(path.join(directory, 'checkpoints'), 1)
  const newest = await store.newest((_file, error) => say(`passed over a bad checkpoint: ${error.message}`))
  if (newest) return { ...newest, directory }
  throw new ConvoyError('E_CHECKPOINT', `${directory} has no checkpoint yet`, 'Train for a while first.')
}

const orders: Record<string, KernelOrder> = {
  tensorflow: 'hwio',
  theano: 'oihw-turned',
  'theano-tf': 'hwio-turned',
  pytorch: 'oihw',
}

/** Weights with the network that they belong to. */
export interface Weights {
  readonly file: string
  readonly stored: WeightsFile
  readonly network: Network
  readonly matched: Matched
  /** Where the network that the file describes differs from this one, in a sentence. */
  readonly other: string | undefined
}

/**
 * Reads a weights file and lays it out for its network: the one that the file names, else `--model` with as many filters
 * and classes as the file's first and last layer have. Throws E_WEIGHTS_FILE, E_WEIGHTS_FIT, E_MODEL or E_USAGE.
 */
export async function openWeights(file: string, options: SourceOptions): Promise<Weights> {
  const weights = matchSource(await readAnyWeights(file), file, options)
  if (weights.other === undefined || options.model !== undefined) return weights
  throw new ConvoyError(
    'E_WEIGHTS_FIT',
    weights.other,
    'Its numbers would fit, but not mean the same. Give --model NAME to take them all the same.',
  )
}

/** As `openWeights`, of the file or run that the options name. */
export async function openSource(options: SourceOptions, say: (text: string) => void): Promise<Weights> {
  if (options.weights !== undefined) return openWeights(options.weights, options)
  const { checkpoint, file } = await openCheckpoint(options, say)
  return matchSource(checkpointWeights(checkpoint, file), file, options)
}

/** Lays what was read out for its network, as `openWeights` does. */
export function matchSource(stored: WeightsFile, file: string, options: SourceOptions): Weights {
  const order = options.kernels === undefined ? undefined : orders[options.kernels]
  if (options.kernels !== undefined && !order) {
    throw new ConvoyError(
      'E_USAGE',
      `--kernels ${options.kernels} is not possible`,
      `Use one of: ${Object.keys(orders).join(', ')}.`,
    )
  }
  const network =
    stored.network && options.model === undefined
      ? stored.network
      : { model: modelLike(stored, file, options.model ?? modelNames[0], order) }
  const names = options.order?.split(',').map((name) => name.trim())
  const matched = matchWeights(stored, network.model, {
    ...(order ? { order } : {}),
    ...(names ? { names } : {}),
  })
  const described = stored.network ? undefined : stored.described
  return { file, stored, network, matched, other: described && difference(described, network.model) }
}

/** The model of this name with the first layer's filters, the last layer's classes, and 32×32 images, padded as the file's network. */
function modelLike(
  stored: WeightsFile,
  file: string,
  name: string,
  order: KernelOrder | undefined,
): ModelSpec {
  const shapes = convolutionsOf(stored).layers.map(({ tensors }) => tensors[0].shape)
  // A kernel is as high as wide: that tells its order.
  const oihw = order ? order.startsWith('oihw') : isOutputsFirst(shapes, isTorchBorn(stored))
  const inputs = (shape: readonly number[]) => shape.at(oihw ? 1 : -2)!
  const outputs = (shape: readonly number[]) => shape.at(oihw ? 0 : -1)!
  // Of a chain, whatever its layers' order: what goes into the network comes out of no layer, and its classes go into none.
  const more = (these: readonly number[], those: readonly number[]) =>
    these.find((n) => these.filter((m) => m === n).length > those.filter((m) => m === n).length)
  const [ins, outs] = [shapes.map(inputs), shapes.map(outputs)]
  const classes = more(outs, ins) ?? outs.at(-1)!
  const entry = more(ins, outs)
  const first = shapes.find((shape) => inputs(shape) === entry) ?? shapes.at(0)
  if (first?.length !== 4 || shapes.some(({ length }) => length < 2)) {
    throw new ConvoyError(
      'E_WEIGHTS_FIT',
      `${file} holds no convolutions, or not only such`,
      'Give a file of the weights of an All-CNN.',
    )
  }
  const [filters, channels] = [outputs(first), inputs(first)]
  const base = buildModel(name, { input: [32, 32, channels], classes })
  const usual = base.layers.find((layer) => layer.kind === 'conv2d')!.filters
  const model = buildModel(name, { input: [32, 32, channels], classes, width: filters / usual })
  return withPaddingOf(stored, model, order)
}
