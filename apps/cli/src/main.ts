import { asConvoyError, ConvoyError } from '@convoy/errors'
import { coordinatorSchema, dataSchema, recipes } from '@convoy/coordinator'
import { engineSchema, workerSchema } from '@convoy/worker'
import { Command, CommanderError } from 'commander'
import manifest from '../package.json' with { type: 'json' }
import type { z } from 'zod'
import { EXIT, evaluateSchema, trainSchema } from './schemas.ts'
import { addOptions, checkConfigFile, collect, type Given } from './options.ts'

/** Options that are not part of any schema. */
interface Common {
  json?: boolean
  verbose?: boolean
  config?: string
}

const recipeHelp = Object.entries(recipes)
  .map(([name, { description }]) => `  ${name.padEnd(8)} ${description}`)
  .join('\n')

const program = new Command('convoy')
  .version(manifest.version, '--version', 'show the version')
  .description('Trains convnets on machines that come and go, with bit for bit the same result.')
  .showHelpAfterError('(--help lists what there is)')
  .configureHelp({ showGlobalOptions: false })
  .exitOverride()

function command(name: string, description: string): Command {
  return program
    .command(name)
    .description(description)
    .option('--json', 'one JSON object a line')
    .option('--verbose', 'show stack traces and details')
    .exitOverride()
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
    .option('--resume', 'go on with the newest run that is not finished')
    .addHelpText('after', `\nRecipes:\n${recipeHelp}`),
  trainSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { train } = await import('./train.ts')
  process.exitCode = await train(given(options, [trainSchema]), options)
})

addOptions(
  command('coordinator', 'the coordinator alone: listens, and waits for workers')
    .option('--recipe <NAME>', `options that belong together: ${Object.keys(recipes).join(', ')}`)
    .option('--config <FILE>', 'JSON file of options')
    .addHelpText('after', `\nRecipes:\n${recipeHelp}`),
  coordinatorSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { coordinate } = await import('./train.ts')
  process.exitCode = await coordinate(given(options, [coordinatorSchema]), options)
})

addOptions(
  command('worker', 'one worker: computes gradients for a coordinator').option(
    '--config <FILE>',
    'JSON file of options',
  ),
  workerSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { work } = await import('./work.ts')
  process.exitCode = await work(collect(workerSchema, given(options, [workerSchema])), options)
})

addOptions(
  command('evaluate', 'accuracy of a run or checkpoint on the test set, by class')
    .option('--run <NAME>', 'run to take the newest checkpoint of (default: the newest run)')
    .option('--runs <DIR>', 'where runs are kept', 'runs')
    .option('--checkpoint <FILE>', 'a checkpoint file instead'),
  evaluateSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { evaluate } = await import('./evaluate.ts')
  process.exitCode = await evaluate(given(options, [evaluateSchema]), options)
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

const bench = program.command('bench').description('measurements: engine, cluster').exitOverride()
addOptions(
  bench
    .command('engine')
    .description('images/s of every engine that runs here, beside PyTorch where there is one')
    .option('--rounds <N>', 'interleaved rounds; the median counts', '5')
    .option('--json', 'one JSON object a line, a summary last')
    .option('--verbose', 'show stack traces')
    .exitOverride(),
  engineSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { benchEngine } = await import('./bench-engine.ts')
  process.exitCode = await benchEngine(given(options, [engineSchema]), options)
})
addOptions(
  bench
    .command('cluster')
    .description('images/s of a local cluster beside the bare speed of its engines')
    .option('--rounds <N>', 'interleaved rounds; the median counts', '5')
    .option('--json', 'one JSON object a line, a summary last')
    .option('--verbose', 'show stack traces')
    .exitOverride(),
  trainSchema,
).action(async (options: Common & Record<string, unknown>) => {
  const { benchCluster } = await import('./bench-cluster.ts')
  process.exitCode = await benchCluster(given(options, [trainSchema]), options)
})

/** Shows an error: in words for a person, as an object for a program, with its stack where that was asked for. */
export function showError(error: ConvoyError, { json, verbose }: Common): void {
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
