import { Command } from 'commander'
import { coordinatorSchema } from '@convoy/coordinator/config'
import { workerSchema } from '@convoy/worker/config'
import { describe, expect, it } from 'vitest'
import { addOptions, flagOf } from './options.ts'
import { evaluateSchema, logSchema, optionGroups, relaySchema, trainSchema } from './schemas.ts'

const schemas = [trainSchema, logSchema, coordinatorSchema, workerSchema, evaluateSchema, relaySchema]
const grouped = Object.values(optionGroups).flatMap(({ keys }): readonly string[] => keys)

/** What a command prints with all options of `convoy train`, and how it ends. */
function ask(...args: string[]): { text: string; error: unknown } {
  let text = ''
  const command = addOptions(new Command('train'), trainSchema, 'Recipes').exitOverride()
  command.configureOutput({ writeOut: (part) => (text += part) })
  let error: unknown
  try {
    command.parse(args, { from: 'user' })
  } catch (thrown) {
    error = thrown
  }
  return { text, error }
}
const explained = (text: string) => [...text.matchAll(/^ {2}--([\w-]+)/gm)].map(([, flag]) => flag)

describe('the groups of options', () => {
  it('hold each option once, and nothing else', () => {
    const keys = new Set(schemas.flatMap((schema) => Object.keys(schema.shape)))
    expect([...grouped].sort()).toEqual([...keys].sort())
  })

  it('are told by --help, which names all options and explains the most used', () => {
    const { text, error } = ask('--help')
    expect(error).toMatchObject({ exitCode: 0 })
    for (const key of Object.keys(trainSchema.shape)) expect(text).toContain(`--${flagOf(key)}`)
    expect(explained(text)).toEqual(
      Object.values(optionGroups).flatMap(({ keys, often }) => keys.slice(0, often).map(flagOf)),
    )
  })

  it.each(['data', 'address'] as const)('are explained by --help %s, in order', (group) => {
    const { text } = ask('--help', group)
    const own = optionGroups[group].keys.filter((key) => key in trainSchema.shape)
    expect(explained(text)).toEqual(own.map(flagOf))
    expect(text).not.toContain('Recipes')
  })

  it('are explained together by --help all', () => {
    expect(explained(ask('--help', 'all').text).sort()).toEqual(
      Object.keys(trainSchema.shape).map(flagOf).sort(),
    )
  })

  it('refuse one that there is not', () => {
    expect(ask('--help', 'cake').error).toMatchObject({ code: 'E_USAGE', message: /cake/ })
  })
})
