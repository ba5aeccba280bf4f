import { ConvoyError } from '@convoy/errors'
import type { Command, Option } from 'commander'
import { optionGroups, type OptionGroup } from './schemas.ts'

/** A command with more options than this explains the most used ones only, unless it is asked for others. */
const MANY = 30

const names = Object.keys(optionGroups) as OptionGroup[]
const heading = (name: OptionGroup) => `${name}: ${optionGroups[name].title}`

/** Where an option stands: its group, undefined where it has none, and its place in that. */
export function placeOf(key: string): { group: OptionGroup | undefined; at: number } {
  for (const group of names) {
    const at = (optionGroups[group].keys as readonly string[]).indexOf(key)
    if (at >= 0) return { group, at }
  }
  return { group: undefined, at: 0 }
}

/** Keys in the order in which they are shown. */
export function inOrder(keys: readonly string[]): string[] {
  const rank = (key: string) => {
    const { group, at } = placeOf(key)
    return 1_000 * (group === undefined ? names.length : names.indexOf(group)) + at
  }
  return [...keys].sort((a, b) => rank(a) - rank(b))
}

/** The groups of some flags and what each is for, a paragraph a group. */
function overview(flags: ReadonlyMap<OptionGroup, readonly string[]>): string {
  return [...flags]
    .map(([name, all]) => {
      const lines = all.reduce<string[]>(
        (done, flag) => {
          const last = done.at(-1)!
          return last.length + flag.length < 66 ? [...done.slice(0, -1), `${last} ${flag}`] : [...done, flag]
        },
        [''],
      )
      const indented = lines.map((line) => `${' '.repeat(12)}${line.trim()}`)
      return [`  ${name.padEnd(9)} ${optionGroups[name].title}`, ...indented].join('\n')
    })
    .join('\n')
}

/**
 * Gives a command's help the groups of its options. Where there are many, `--help` explains the most used, `--help GROUP`
 * those of a group, `--help all` all; an unknown group is E_USAGE.
 *
 * @param options The options that are shown, by key, in their order.
 * @param recipes What there is to say of recipes.
 */
export function groupHelp(command: Command, options: ReadonlyMap<string, Option>, recipes = ''): void {
  const flags = new Map<OptionGroup, string[]>()
  for (const [key, option] of options) {
    const { group } = placeOf(key)
    option.helpGroup(group === undefined ? 'more:' : heading(group))
    if (group !== undefined) flags.set(group, [...(flags.get(group) ?? []), option.long!])
  }
  if (options.size <= MANY) return
  const topics = [...flags.keys(), 'all']
  let topic: string | undefined
  const explain = (asked: string | undefined) => {
    topic = asked
    for (const [key, option] of options) {
      const { group, at } = placeOf(key)
      const often = group !== undefined && at < optionGroups[group].often
      option.hidden = asked === undefined ? !often : asked !== 'all' && asked !== group
    }
  }
  explain(undefined)
  command
    .helpOption(false)
    .option('-h, --help [GROUP]', `the most used options; or those of a group: ${topics.join(', ')}`)
    .on('option:help', (asked: string | null) => {
      if (asked !== null && !topics.includes(asked)) {
        const remedy = `Use one of: ${topics.join(', ')}.`
        throw new ConvoyError('E_USAGE', `--help ${asked}: there is no such group of options`, remedy)
      }
      explain(asked ?? undefined)
      command.help()
    })
    .addHelpText('after', () => {
      const more = `\nThese are the most used. --help GROUP explains a group, --help all everything:\n${overview(flags)}`
      const withRecipes = topic === undefined || topic === 'all' || topic === 'recipe'
      return `${withRecipes ? recipes : ''}${topic === undefined ? more : ''}`
    })
}
