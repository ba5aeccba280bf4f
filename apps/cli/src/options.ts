import { ConvoyError } from '@convoy/errors'
import { Option, type Command } from 'commander'
import { readFileSync } from 'node:fs'
import { z } from 'zod'
import { groupHelp, inOrder } from './help.ts'

/**
 * One schema, three ways to set an option: a flag (`--batch-size`), an environment variable (`CONVOY_BATCH_SIZE`) and a
 * key of the config file (`batchSize`). A flag wins over the environment, that over the file, that over the recipe.
 */

type Shape = Record<string, z.ZodType>
type Values = Record<string, unknown>

interface Meta {
  description?: string
  unit?: string
}

/** `batchSize` → `batch-size`. */
export function flagOf(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

/** `batchSize` → `CONVOY_BATCH_SIZE`. */
export function variableOf(key: string): string {
  return `CONVOY_${flagOf(key).replaceAll('-', '_').toUpperCase()}`
}

/** The schema inside `optional` and `default`, and that default. */
function unwrap(schema: z.ZodType): { core: z.ZodType; fallback: unknown } {
  let core = schema
  let fallback: unknown
  while (core instanceof z.ZodDefault || core instanceof z.ZodOptional) {
    if (core instanceof z.ZodDefault) fallback = core.def.defaultValue
    core = core.unwrap() as z.ZodType
  }
  return { core, fallback }
}

/** Adds a flag for each key of the schema to a command, with its unit, default and variable in the help; see `groupHelp`. */
export function addOptions(command: Command, schema: z.ZodObject<Shape>, recipes?: string): Command {
  const shown = new Map<string, Option>()
  for (const key of inOrder(Object.keys(schema.shape))) {
    const field = schema.shape[key]
    const { description = '', unit = 'VALUE' } = (field.meta() ?? {}) as Meta
    const { core, fallback } = unwrap(field)
    const flag = flagOf(key)
    const choices = core instanceof z.ZodEnum ? ` (${core.options.join(', ')})` : ''
    const notes = [
      ...(fallback === undefined || fallback === false ? [] : [`default ${String(fallback)}`]),
      variableOf(key),
    ].join(', ')
    if (core instanceof z.ZodBoolean) {
      shown.set(key, new Option(`--${flag}`, `${description} [${notes}]`))
      // In this order: commander takes true for the default of an option that is first known by its negation.
      command.addOption(shown.get(key)!).addOption(new Option(`--no-${flag}`).hideHelp())
    } else {
      shown.set(key, new Option(`--${flag} <${unit}>`, `${description}${choices} [${notes}]`))
      command.addOption(shown.get(key)!)
    }
  }
  groupHelp(command, shown, recipes)
  return command
}

/** A text from a flag or variable, as the type that the schema wants; what does not fit is left for it to refuse. */
function fromText(field: z.ZodType, text: unknown): unknown {
  if (typeof text !== 'string') return text
  const { core } = unwrap(field)
  const number = text.trim() === '' ? NaN : Number(text)
  if (core instanceof z.ZodNumber) return Number.isNaN(number) ? text : number
  if (core instanceof z.ZodUnion) return Number.isNaN(number) ? text : number
  if (core instanceof z.ZodArray) return text.split(',').map(Number)
  if (core instanceof z.ZodBoolean) {
    if (/^(1|true|yes|on)$/i.test(text)) return true
    if (/^(0|false|no|off|)$/i.test(text)) return false
  }
  return text
}

/** What was set explicitly, and where. */
export interface Given {
  /** Flags that were given, by key. */
  readonly flags: Values
  readonly environment: NodeJS.ProcessEnv
  /** Path of a JSON config file. */
  readonly file?: string | undefined
}

/** Collects what was set for the schema's keys, the strongest source winning. Throws E_USAGE. */
export function collect(schema: z.ZodObject<Shape>, given: Given): Values {
  const file = given.file === undefined ? {} : readConfigFile(given.file)
  const values: Values = {}
  for (const [key, field] of Object.entries(schema.shape)) {
    // A variable that is set to nothing counts as not set.
    const value = given.flags[key] ?? (given.environment[variableOf(key)] || undefined) ?? file[key]
    if (value !== undefined) values[key] = fromText(field, value)
  }
  return values
}

/** The values of some keys. */
export function pick(values: Values, keys: readonly string[]): Values {
  return Object.fromEntries(Object.entries(values).filter(([key]) => keys.includes(key)))
}

/** Checks collected values and fills in defaults. Throws E_USAGE that names the flag. */
export function settle<S extends z.ZodObject<Shape>>(schema: S, values: Values): z.infer<S> {
  const parsed = schema.safeParse(values)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]
  const key = String(issue.path[0] ?? '')
  // A secret does not belong into logs.
  const value = key === 'token' ? '' : ` ${String(values[key])}`
  throw new ConvoyError(
    'E_USAGE',
    `--${flagOf(key)}${value} is not possible: ${issue.message}`,
    'See --help for what it takes.',
  )
}

function readConfigFile(file: string): Values {
  let parsed: unknown
  try {
    parsed = JSON.parse(readFileSync(file, 'utf8'))
  } catch (error) {
    throw new ConvoyError(
      'E_USAGE',
      `cannot read ${file}: ${(error as Error).message}`,
      'Give --config a JSON file.',
    )
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed)) {
    throw new ConvoyError('E_USAGE', `${file} is not a JSON object`, 'Write {"batchSize": 64, …}.')
  }
  return parsed as Values
}

/** Refuses keys of a config file that no schema knows, so that a misspelt one is not passed over. */
export function checkConfigFile(file: string | undefined, known: ReadonlySet<string>): void {
  if (file === undefined) return
  const strange = Object.keys(readConfigFile(file)).find((key) => !known.has(key))
  if (strange !== undefined) {
    throw new ConvoyError(
      'E_USAGE',
      `${file} sets ${strange}, which is no option`,
      'See --help for the names.',
    )
  }
}
