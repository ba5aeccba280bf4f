import { execFileSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { optionGroups } from '../apps/cli/src/schemas.ts'
import { flagOf } from '../apps/cli/src/options.ts'
import { root } from './convoy.ts'

/** Commands of other programs that the guides call, to the end of the code or the line. */
const foreign = /\b(npx|npm ci|tensorboard|kubectl|docker|podman|nsys) [^`|\n]*/g
/** Variables that are no option: where data are kept, which library is loaded. */
const variables = [
  'CONVOY_CACHE',
  'CONVOY_CUDA',
  'CONVOY_KERAS_PYTHON',
  'CONVOY_PYARROW_PYTHON',
  'CONVOY_KUBERNETES',
  'CONVOY_KUBERNETES_BY',
  'CONVOY_ONEDNN',
  'CONVOY_TORCH_PYTHON',
]

const help = (...command: string[]): string => {
  const ask = (...more: string[]) =>
    execFileSync(path.join(root, 'convoy'), [...command, '--help', ...more], { encoding: 'utf8' })
  const text = ask()
  return text.includes('--help all') ? ask('all') : text
}
/** The commands that a help text lists. */
const subcommands = (text: string) =>
  [...(text.split('\nCommands:\n')[1] ?? '').matchAll(/^ {2}(\w+)/gm)]
    .map(([, name]) => name)
    .filter((name) => name !== 'help')
const flagsIn = (text: string) => text.match(/(?<![\w-])--[a-z][a-z0-9-]*/g) ?? []

function commandsAndHelp(): Map<string, string> {
  const all = new Map<string, string>()
  const visit = (...command: string[]) => {
    const text = help(...command)
    const below = subcommands(text)
    if (below.length > 0) for (const name of below) visit(...command, name)
    else all.set(command.join(' '), text)
  }
  visit()
  return all
}

const guides = path.join(root, 'docs', 'guides')
const documents = [
  'README.md',
  'ARCHITECTURE.md',
  'CONTRIBUTING.md',
  'docs/figures.md',
  ...readdirSync(guides).map((name) => `docs/guides/${name}`),
]
const read = (name: string) => readFileSync(path.join(root, name), 'utf8')

describe('the documents', () => {
  const commands = commandsAndHelp()
  const texts = [...commands.values()].join('\n')
  const harnesses = ['chaos/main', 'elastic/main', 'finetune/main', 'fuzz/main', 'learn/main', 'scale/feed']
    .map((name) => read(`test/${name}.ts`))
    .join('\n')
  const flags = new Set([...flagsIn(texts), ...flagsIn(harnesses)])
  const known = new Set([...(texts.match(/CONVOY_\w+/g) ?? []), ...variables])

  it.each(documents)('%s names flags, variables and files that there are', (name) => {
    const text = read(name)
    expect(flagsIn(text.replace(foreign, '')).filter((flag) => !flags.has(flag))).toEqual([])
    expect((text.match(/CONVOY_\w+/g) ?? []).filter((variable) => !known.has(variable))).toEqual([])
    const links = [...text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, link]) => link)
    for (const link of links)
      expect(() => readFileSync(path.join(root, path.dirname(name), link))).not.toThrow(/ENOENT/)
  })

  it('docs/guides/options.md has the groups of --help, with the same options in the same order', () => {
    const rows = [...read('docs/guides/options.md').matchAll(/^\| `(\w+)` +\| (.*?) +\| (.*?) +\|$/gm)]
    expect(rows.map(([, name, title, all]) => [name, title, flagsIn(all)])).toEqual(
      Object.entries(optionGroups).map(([name, { title, keys }]) => [
        name,
        title,
        keys.map((key) => `--${flagOf(key)}`),
      ]),
    )
  })

  it.each(documents)('%s gives commands only flags that they take', (name) => {
    for (const [line] of read(name).matchAll(/\bconvoy [a-z][^`|#\n]*/g)) {
      const words = line.split(' ').slice(1)
      const command = [words.slice(0, 2).join(' '), words[0]].find((candidate) => commands.has(candidate))
      if (command === undefined) continue
      const takes = new Set(flagsIn(commands.get(command)!))
      expect(
        flagsIn(line).filter((flag) => !takes.has(flag)),
        line,
      ).toEqual([])
    }
  })
})
