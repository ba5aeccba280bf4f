import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

/** What dependency-cruiser finds: every module with what it imports, types included, and what `.dependency-cruiser.mjs` forbids. */
interface Cruised {
  readonly modules: readonly { source: string; dependencies: readonly { resolved: string }[] }[]
  readonly summary: {
    readonly violations: readonly {
      from: string
      to: string
      rule: { name: string }
      cycle?: readonly { name: string }[]
    }[]
  }
}

const cruiser = path.join(root, 'node_modules', '.bin', 'depcruise')
const { modules, summary } = JSON.parse(
  execFileSync(cruiser, ['apps', 'libs', 'test', '--output-type', 'json'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  }),
) as Cruised

/** The app or library that a file is of, such as `libs/data`. */
const partOf = (file: string) => /^(?:apps|libs)\/[^/]+/.exec(file)?.[0]

/** All imports between parts: of each part, the others that it imports. */
function arrows(): Map<string, Set<string>> {
  const all = new Map<string, Set<string>>()
  for (const { source, dependencies } of modules) {
    const from = partOf(source)
    if (from === undefined) continue
    const to = dependencies.map(({ resolved }) => partOf(resolved)).filter((one) => one !== undefined)
    all.set(from, new Set([...(all.get(from) ?? []), ...to.filter((one) => one !== from)]))
  }
  return all
}

/** Mermaid's text of the arrows, without those that follow from others. */
function drawn(all: ReadonlyMap<string, ReadonlySet<string>>): string {
  const reaches = (from: string, to: string): boolean =>
    [...(all.get(from) ?? [])].some((next) => next === to || reaches(next, to))
  const name = (part: string) => part.split('/')[1]
  const parts = [...all.keys()].sort()
  const lines = parts.flatMap((from) => {
    const near = [...all.get(from)!].filter((to) => ![...all.get(from)!].some((next) => reaches(next, to)))
    return near.length === 0 ? [] : [`  ${name(from)} --> ${near.map(name).sort().join(' & ')}`]
  })
  const apps = parts.filter((part) => part.startsWith('apps/'))
  return ['graph TD', ...apps.map((app) => `  ${name(app)}[[${name(app)}]]`), ...lines, ''].join('\n')
}

it('keeps the rules for imports: no circle, doors, one-way arrows', () => {
  const told = summary.violations.map(
    ({ rule, from, to, cycle }) =>
      `${rule.name}: ${cycle ? [from, ...cycle.map((one) => one.name)].join(' → ') : `${from} → ${to}`}`,
  )
  expect(told).toEqual([])
})

it('is drawn in ARCHITECTURE.md as it is', () => {
  const picture = drawn(arrows())
  const text = readFileSync(path.join(root, 'ARCHITECTURE.md'), 'utf8')
  const found = /^```mermaid\n(.*?)^```/ms.exec(text)?.[1]
  expect(found, `ARCHITECTURE.md should have, between \`\`\`mermaid and \`\`\`:\n\n${picture}`).toBe(picture)
})
