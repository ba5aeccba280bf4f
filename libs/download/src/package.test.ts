import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { beforeEach, describe, expect, it } from 'vitest'
import { npmRegistry } from './package.ts'

describe('#npmRegistry', () => {
  let home: string
  beforeEach(() => {
    home = mkdtempSync(path.join(tmpdir(), 'convoy-npm-'))
    return () => rmSync(home, { recursive: true })
  })
  const { PATH } = process.env
  const write = (text: string, name = '.npmrc') => writeFileSync(path.join(home, name), text)

  it('is what the variable says, in either case, before all else', () => {
    write('registry=https://file.example/\n')
    expect(npmRegistry({ HOME: home, npm_config_registry: 'https://a.example/npm/' })).toBe(
      'https://a.example/npm',
    )
    expect(npmRegistry({ HOME: home, NPM_CONFIG_REGISTRY: 'https://b.example' })).toBe('https://b.example')
  })

  it('is what the user’s .npmrc says, with its variables', () => {
    write('fund=false\n registry = "https://${PLACE}.example/npm/"\n@scope:registry=https://other.example\n')
    expect(npmRegistry({ PATH, HOME: home, PLACE: 'here' })).toBe('https://here.example/npm')
    write('registry=https://special.example', 'special')
    const NPM_CONFIG_USERCONFIG = path.join(home, 'special')
    expect(npmRegistry({ PATH, HOME: home, NPM_CONFIG_USERCONFIG })).toBe('https://special.example')
  })

  it('is an address where nothing says any', () => {
    write('@scope:registry=https://other.example\n')
    expect(npmRegistry({ PATH, HOME: home })).toMatch(/^https?:\/\/[^/].*[^/]$/)
    expect(npmRegistry({ PATH, HOME: home })).not.toContain('other.example')
  })
})
