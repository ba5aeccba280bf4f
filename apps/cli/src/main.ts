import { asConvoyError, ConvoyError } from '@convoy/errors'
import { coordinatorSchema, dataSchema, trainingSchema } from '@convoy/coordinator/config'
import { recipes, type Recipe } from '@convoy/coordinator/recipes'
import { engineSchema, workerSchema } from '@convoy/worker/config'
import { Command, CommanderError } from 'commander'
import manifest from '../package.json' with { type: 'json' }
import type { Logger } from 'pino'
import type { z } from 'zod'
import { openLog } from './log.ts'
import { EXIT, evaluateSchema, logSchema, relaySchema, trainSchema } from './schemas.ts'
import { addOptions, checkConfigFile, collect, type Given } from './options.ts'

/** Options that are not part of any schema. */
interface Common {
  json?: boolean
  verbose?: boolean
  config?: string
  offline?: boolean
}

/** What a recipe comes to, in words. */
function expectation({ options, expected: { work, accuracy, minutes } }: Recipe): string {
  const measured = [
    ...(accuracy === undefined ? [] : [`${(100 * accuracy).toFixed(2)} %`]),
    ...(minutes === undefined ? [] : [`${minutes} min on two cores`]),
  ]
  const unknown = [
    ...(accuracy === undefined ? ['accuracy'] : []),
    ...(minutes === undefined ? ['time'] : []),
  ]
  const rest = unknown.length > 0 ? [`${unknown.join(' and ')} not yet measured`] : []
  const epochs = options.epochs ?? trainingSchema.shape.epochs.def.defaultValue
  return [`${epochs} epochs, the work of ${work} at full size`, ...measured, ...rest].join('; ')
}

const recipeHelp = `\nRecipes:\n${Object.entries<Recipe>(recipes)
  .map(
    ([name, recipe]) =>
      `  ${name.padEnd(8)} ${recipe.description}\n  ${' '.repeat(8)} ${expectation(recipe)}`,
  )
  .join('\n')}\n`

const program = new Command('convoy')
  .version(manifest.version, '--version', 'show the version')
  .description('Trains convnets on machines that come and go, with bit for bit the same result.')
  .showHelpAfterError('(--help lists what there is)')
  .configureHelp({ showGlobalOptions: false })
  .hook('preAction', (_program, action) => {
    // What fetches looks at the variable.
    if (action.opts<Common>().offline) process.env['CONVOY_OFFLINE'] = 'true'
  })
  .exitOverride()

/** A flag of all commands that may fetch something. */
const offline = ['--offline', 'fetch nothing, neither data sets nor libraries [CONVOY_OFFLINE]'] as const

function command(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--json', 'one JSON object a line')
    .option('--verbose', 'show stack traces and details')
    .exitOverride()
}

/** The log of the command that runs, where it is JSON lines. */
let logger: Logger | undefined

/** Opens the log of a command; `--json` is for programs and stays as it is. */
async function startLog(options: Common, given: Given): Promise<void> {
  if (!options.json) logger = await openLog(given)
}

/** The flags of a command as given, ready to be collected. */
function given(options: Common & Record<string, unknown>, known: z.ZodObject[]): Given {
  checkConfigFile(options.config, new Set(known.flatMap((schema) => Object.keys(schema.shape))))
  return { flags: options, environment: process.env, file: options.config }
}

addOptions(
  command('train', 'train on this machine: a coordinator and its workers in one command')
    .option('--recipe <NAME>', `options that belong together: ${Object.keys(recipes).join(', ')}`)
    .option('--config <FILE>', 'JSON file of options, by their names in camelCase')
    .option(...offline)
    .option('--resume', 'go on with the newest run that is not finished'),
  trainSchema.extend(logSchema.shape),
  recipeHelp,
).action(async (options: Common & Record<string, unknown>) => {
  const set = given(options, [trainSchema, logSchema])
  await startLog(options, set)
  const { train } = await import('./train.ts')
  process.exitCode = await train(set, { ...options, logger })
})

addOptions(
  command('coordinator', 'the coordinator alone: listens, and waits for workers')
    .option('--recipe <NAME>', `options that belong together: ${Object.keys(recipes).join(', ')}`)
    .option('--config <FILE>', 'JSON file of options')
    .option(...offline),
  coordinatorSchema.extend(logSchema.shape),
  recipeHelp,
).action(async (options: Common & Record<string, unknown>) => {
  const set = given(options, [coordinatorSchema, logSchema])
  await startLog(options, set)
  const { coordinate } = await import('./train.ts')
  process.exitCode = await coordinate(set, { ...options, logger })
})

addOptions(
  command('worker', 'one worker: computes gradients for a coordinator')
    .option('--config <FILE>', 'JSON file of options')
    .option(...offline),
  workerSchema.extend(logSchema.shape),
).action(async (options: Common & Record<string, unknown>) => {
  const set = given(options, [workerSchema, logSchema])
  await startLog(options, set)
  const { work } = await import('./work.ts')
  process.exitCode = await work(collect(workerSchema, set), { ...options, logger })
})

addOptions(
  command('relay', 'one worker to a coordinator elsewhere, and the coordinator of workers here')
    .option('--config <FILE>', 'JSON file of options')
    .option(...offline),
  relaySchema.extend(logSchema.shape),
).action(async (options: Common & Record<string, unknown>) => {
  const set = given(options, [relaySchema, logSchema])
  await startLog(options, set)
  const { relay } = await import('./relay.ts')
  process.exitCode = await relay(collect(relaySchema, set), { ...options, logger })
})

const takenAs =
  'network that a weights file is taken for, also where it describes another (default: what it names)'

/** Adds the flags that say which weights to use. */
function addSource(command: Command): Command {
  return command
    .option('--run <NAME>', 'run to take the newest checkpoint of (default: the newest run)')
    .option('--runs <DIR>', 'where runs are kept', 'runs')
    .option('--checkpoint <FILE>', 'a checkpoint file instead')
    .option('--weights <FILE>', 'a file of Keras, TensorFlow.js, PyTorch or safetensors instead')
}

addOptions(
  addSource(command('evaluate', 'accuracy of weights on the test set, class by class'))
    .option('--flip', 'also with each image mirrored, the means reported apart')
    .option('--svg <FILE>', 'write the confusion matrix as an image')
    .option('--model <NAME>', takenAs)
    .option('--worst <FILE>', 'write the most wrong images as one picture (.png)')
    .option(...offline),
  evaluateSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { evaluate } = await import('./evaluate.ts')
  process.exitCode = await evaluate(given(options, [evaluateSchema]), options)
})

addOptions(
  addSource(
    command('predict', 'what images show, with probabilities').argument(
      '<IMAGE...>',
      'images, or folders of them',
    ),
  )
    .option('--model <NAME>', takenAs)
    .option('--top <K>', 'how many classes to show', '3')
    .option(...offline),
  engineSchema,
).action(async (images: string[], options: Common & Record<string, unknown>) => {
  const { predict } = await import('./predict.ts')
  process.exitCode = await predict(images, given(options, [engineSchema]), options)
})

command('report', 'one HTML file of a run: curves, verdict, figures, settings, hashes, machine, events')
  .argument('[RUN]', 'name or folder of a run (default: the newest)')
  .option('--runs <DIR>', 'where runs are kept', 'runs')
  .option('--out <FILE>', 'file to write (default: report.html in the folder of the run)')
  .action(async (run: string | undefined, options: Common & { runs: string; out?: string }) => {
    const { report } = await import('./report.ts')
    process.exitCode = await report(run, options)
  })

const weights = program
  .command('weights')
  .description('weights in and out: info, import, export')
  .exitOverride()
function weightsCommand(name: string, description: string): Command {
  return weights
    .command(name)
    .description(description)
    .option('--json', 'one JSON object')
    .option('--verbose', 'show stack traces')
    .option('--model <NAME>', 'network of a file that does not name one (default: all-cnn-c)')
    .option(
      '--kernels <ORDER>',
      'order of its kernels, where it is not seen: tensorflow, theano, theano-tf (turned by 180° only) or pytorch',
    )
    .option('--order <NAMES>', "its layers in the network's order, with commas between, where it is not seen")
    .exitOverride()
}
weightsCommand('info', 'what a file of weights holds, and which layer is which')
  .argument(
    '<FILE>',
    'checkpoint (.convoy), Keras (.h5), TensorFlow.js (model.json), PyTorch (.pt) or .safetensors',
  )
  .action(async (file: string, options: Common) => {
    const { weightsInfo } = await import('./weights.ts')
    process.exitCode = await weightsInfo(file, options)
  })
const importSchema = dataSchema.extend(trainingSchema.pick({ preprocessing: true }).shape)
addOptions(
  weightsCommand(
    'import',
    'lay a foreign file out for Convoy; --data says what its classes and normalisation are',
  )
    .argument('<FILE>', 'Keras (.h5), TensorFlow.js (model.json), PyTorch (.pt) or .safetensors')
    .option('--out <FILE>', 'file to write (default: the same name, .safetensors)'),
  importSchema,
).action(async (file: string, options: Common & Record<string, unknown>) => {
  const { weightsImport } = await import('./weights.ts')
  process.exitCode = await weightsImport(file, given(options, [importSchema]), options)
})
addSource(
  weightsCommand(
    'export',
    'write weights for others: .safetensors, .json (TensorFlow.js), .h5, .weights.h5 (Keras)',
  ),
)
  .option('--out <FILE>', 'file to write; its name says in which format')
  .action(async (options: Common) => {
    const { weightsExport } = await import('./weights.ts')
    process.exitCode = await weightsExport(options)
  })

const data = program
  .command('data')
  .description('data sets: prepare (fetch, check, convert) and info')
  .exitOverride()
for (const [name, description] of [
  ['prepare', 'fetch, check and convert a data set, so that a run starts at once'],
  ['info', 'classes, counts, shape, mean and deviation, fingerprint'],
] as const) {
  addOptions(
    data
      .command(name)
      .description(description)
      .argument('[SOURCE]', 'as --data')
      .option(...offline)
      .option('--json', 'one JSON object')
      .option('--verbose', 'show stack traces')
      .exitOverride(),
    dataSchema,
  ).action(async (source: string | undefined, options: Common & Record<string, unknown>) => {
    const { showData } = await import('./data.ts')
    const flags = source === undefined ? options : { ...options, data: source }
    process.exitCode = await showData(name, given(flags, [dataSchema]), options)
  })
}

command('doctor', 'what this machine can run, and how to make it faster').action(async (options: Common) => {
  const { doctor } = await import('./doctor.ts')
  process.exitCode = await doctor(options)
})

const setup = program
  .command('setup')
  .description('what an engine needs and npm does not bring: onednn, webgpu, tensorflow')
  .exitOverride()
setup
  .command('onednn')
  .description("oneDNN into the user's cache, as the first training does by itself")
  .option('--json', 'one JSON object a line')
  .option('--verbose', 'show stack traces and details')
  .exitOverride()
  .action(async (options: Common) => {
    const { setUpOnednn } = await import('./setup.ts')
    process.exitCode = await setUpOnednn(options)
  })
setup
  .command('webgpu')
  .description(
    "WebGPU (Dawn) for --engine webgpu on any GPU, into the user's cache: 51 MB are fetched, 21 stay",
  )
  .option('--json', 'one JSON object a line')
  .option('--verbose', 'show stack traces and details')
  .exitOverride()
  .action(async (options: Common) => {
    const { setUpWebgpu } = await import('./setup.ts')
    process.exitCode = await setUpWebgpu(options)
  })
setup
  .command('tensorflow')
  .description("libtensorflow for --engine tfjs-tensorflow, into the user's cache")
  .option('--gpu', 'the one that can use an NVIDIA GPU')
  .option(
    '--from <SOURCE>',
    "package (tfjs-node's install script), pypi (the wheel of TensorFlow), auto: the former where it can be reached",
    'auto',
  )
  .option('--json', 'one JSON object a line')
  .option('--verbose', 'show stack traces and details')
  .exitOverride()
  .action(async (options: Common & { gpu?: boolean; from?: string }) => {
    const { setUpTensorflow } = await import('./setup.ts')
    process.exitCode = await setUpTensorflow(options)
  })

/** How often something is measured. Throws E_USAGE. */
function parseRounds(text: string): number {
  const rounds = Number(text)
  if (Number.isInteger(rounds) && rounds >= 1) return rounds
  throw new ConvoyError(
    'E_USAGE',
    `--rounds ${text} is not a number of rounds`,
    'Give a whole number from 1 on.',
  )
}

const bench = program.command('bench').description('measurements: engine, cluster').exitOverride()
addOptions(
  bench
    .command('engine')
    .description('images/s of every engine that runs here, beside PyTorch where there is one')
    .option('--rounds <N>', 'interleaved rounds; the median counts', parseRounds, 5)
    .option(...offline)
    .option('--json', 'one JSON object a line, a summary last')
    .option('--verbose', 'show stack traces')
    .exitOverride(),
  engineSchema,
).action(async (options: Common & { rounds: number } & Record<string, unknown>) => {
  const { benchEngine } = await import('./bench-engine.ts')
  process.exitCode = await benchEngine(given(options, [engineSchema]), options)
})
addOptions(
  bench
    .command('cluster')
    .description('images/s of a local cluster beside the bare speed of its engines')
    .option('--rounds <N>', 'interleaved rounds; the median counts', parseRounds, 12)
    .option(...offline)
    .option('--json', 'one JSON object a line, a summary last')
    .option('--verbose', 'show stack traces')
    .exitOverride(),
  trainSchema,
).action(async (options: Common & { rounds: number } & Record<string, unknown>) => {
  const { benchCluster } = await import('./bench-cluster.ts')
  process.exitCode = await benchCluster(given(options, [trainSchema]), options)
})

/** Shows an error: in words for a person, as an object for a program, with its stack where that was asked for. */
export function showError(error: ConvoyError, { json, verbose }: Common): void {
  if (logger) {
    const { code, message, remedy } = error
    logger.error({ event: 'error', code, remedy, ...(verbose ? { stack: error.stack } : {}) }, message)
    return
  }
  if (json) {
    const { code, message, remedy } = error
    process.stdout.write(`${JSON.stringify({ event: 'error', code, message, remedy })}\n`)
  } else process.stderr.write(`${error.toText()}\n`)
  if (verbose)
    process.stderr.write(`${error.stack}\n${error.cause instanceof Error ? error.cause.stack : ''}\n`)
}

// A reader that stops reading (`| head`) ends the program quietly.
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

try {
  await program.parseAsync()
} catch (thrown) {
  if (thrown instanceof CommanderError) {
    process.exitCode = thrown.exitCode === 0 ? EXIT.done : EXIT.usage
  } else {
    const error = asConvoyError(thrown)
    showError(error, { json: process.argv.includes('--json'), verbose: process.argv.includes('--verbose') })
    process.exitCode = error.code === 'E_USAGE' ? EXIT.usage : EXIT.failed
  }
}
