import { dataSchema, readAnyWeights, trainingSchema } from '@convoy/coordinator'
import { prepare } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { writeWeights, type Network } from '@convoy/weights'
import { createHash } from 'node:crypto'
import { loadData } from './dataset.ts'
import { Display, styleFor } from './display.ts'
import { grouped } from './format.ts'
import { collect, settle, type Given } from './options.ts'
import { EXIT } from './schemas.ts'
import { matchSource, openSource, openWeights, type SourceOptions, type Weights } from './source.ts'

interface Options extends SourceOptions {
  json?: boolean
  out?: string
}

const preprocessingSchema = trainingSchema.pick({ preprocessing: true })

/** What was read, and what went where, for a person. */
function tableOf({ file, stored, network, matched, other }: Weights): string {
  const { model, classes, preprocessing } = network
  const padded = model.layers.flatMap((layer, i) =>
    'stride' in layer && typeof layer.padding !== 'string'
      ? [`${'name' in layer ? layer.name : `${layer.kind} (layer ${i + 1})`} ${paddingText(layer.padding)}`]
      : [],
  )
  const shape = (dimensions: readonly number[]) => dimensions.join('×').padEnd(16)
  return [
    `file       ${file}: ${stored.format}, kernels ${matched.order}`,
    `model      ${model.name}, ${grouped(matched.parameters.length)} parameters, ${model.classes} classes${classes ? `: ${classes.join(', ')}` : ''}`,
    ...matched.notes.map((note) => `weights    ${note}`),
    ...(other === undefined ? [] : [`warning    ${other}`]),
    ...(padded.length === 0 ? [] : [`padding    ${padded.join('; ')}`]),
    `images     ${model.input.join('×')}, ${preprocessing ? `normalised by ${preprocessing.kind}` : 'normalisation unknown'}`,
    ...matched.table.map(
      ({ layer, shape: wanted, from }) =>
        `  ${layer.padEnd(10)} ${shape(wanted)} ← ${from ? `${from.layer.padEnd(20)} ${shape(from.shape)}` : 'new'}`,
    ),
    `sha256     ${sha256(matched.parameters)}`,
  ].join('\n')
}

/** Zeros around an image, in words. */
function paddingText([[above, below], [left, right]]: readonly [
  readonly [number, number],
  readonly [number, number],
]): string {
  if ([below, left, right].every((n) => n === above))
    return `${above} on all sides, as PyTorch's padding=${above}`
  return `${above} above, ${below} below, ${left} left, ${right} right`
}

function sha256({ buffer, byteOffset, byteLength }: Float32Array): string {
  return createHash('sha256')
    .update(new Uint8Array(buffer, byteOffset, byteLength))
    .digest('hex')
}

function show(weights: Weights, options: Options, display: Display, written: readonly string[]): void {
  const { file, stored, network, matched, other } = weights
  if (options.json) {
    const { order, table, parameters, notes } = matched
    const line = { event: 'weights', file, format: stored.format, kernels: order, model: network.model.name }
    const rest = {
      parameters: parameters.length,
      parametersSha256: sha256(parameters),
      layers: table,
      padding: network.model.layers.flatMap((layer) => ('stride' in layer ? [layer.padding] : [])),
      notes,
      warning: other ?? null,
      written,
    }
    process.stdout.write(`${JSON.stringify({ ...line, ...rest })}\n`)
    return
  }
  display.say(tableOf(weights))
  for (const name of written) display.say(`written    ${name}`)
}

/** `convoy weights info FILE`: what a file holds, and how it fits; where it does not, what it holds all the same. */
export async function weightsInfo(file: string, options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const stored = await readAnyWeights(file)
  try {
    show(matchSource(stored, file, options), options, display, [])
  } catch (error) {
    if (!options.json) {
      display.say(`file       ${file}: ${stored.format}`)
      for (const { name, tensors } of stored.layers)
        display.say(
          `  ${name.padEnd(20)} ${tensors.map(({ shape, kind }) => `${shape.join('×') || 'one number'}${kind === 'float32' ? '' : ` ${kind}`}`).join(', ')}`,
        )
    }
    throw error
  }
  return EXIT.done
}

/** `convoy weights import FILE --out FILE`: lays a foreign file out for Convoy; with `--data`, says what its classes are. */
export async function weightsImport(file: string, given: Given, options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const weights = await openWeights(file, options)
  const values = { ...collect(dataSchema, given), ...collect(preprocessingSchema, given) }
  let network: Network = weights.network
  // Only where it was asked for here: a variable that names the usual data says nothing of this file.
  if (given.flags['data'] !== undefined) {
    const raw = await loadData(values, display)
    const { preprocessing } = await prepare(raw, settle(preprocessingSchema, values).preprocessing, {})
    if (raw.classes.length !== network.model.classes) {
      throw new ConvoyError(
        'E_WEIGHTS_FIT',
        `${file} tells ${network.model.classes} classes apart; ${raw.origin} has ${raw.classes.length}`,
        'Give --data the set that the weights were trained on.',
      )
    }
    network = {
      ...network,
      classes: [...raw.classes],
      ...(preprocessing.kind === 'none' ? {} : { preprocessing }),
    }
  }
  const out = options.out ?? `${file.replace(/(\.weights)?\.[^./]*$/, '')}.safetensors`
  const written = await writeWeights(out, weights.matched.parameters, network)
  show({ ...weights, network }, options, display, written)
  return EXIT.done
}

/** `convoy weights export --out FILE`: writes the weights of a run, checkpoint or file in the format of the name. */
export async function weightsExport(options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  if (options.out === undefined) {
    throw new ConvoyError(
      'E_USAGE',
      'there is no --out FILE',
      'Give a name that ends in .safetensors, .json (TensorFlow.js), .h5 or .weights.h5 (Keras).',
    )
  }
  const weights = await openSource(options, (text) => display.say(text))
  const written = await writeWeights(options.out, weights.matched.parameters, weights.network)
  show(weights, options, display, written)
  return EXIT.done
}
