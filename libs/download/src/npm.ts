import { readFileSync } from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'

/**
 * The registry that npm would ask, without a slash at its end: `npm_config_registry`, or what the user's or the system's .npmrc
 * says, or registry.npmjs.org.
 */
export function npmRegistry(environment: NodeJS.ProcessEnv): string {
  // npm hears its variables in either case.
  const setting = (name: string) =>
    environment[`npm_config_${name}`] || environment[`NPM_CONFIG_${name.toUpperCase()}`]
  const files = [setting('userconfig') || ownFile(environment), '/usr/local/etc/npmrc', '/etc/npmrc']
  const configured = () =>
    files.map((file) => readRegistry(file, environment)).find((one) => one !== undefined)
  return (setting('registry') || configured() || 'https://registry.npmjs.org').replace(/\/*$/, '')
}

function ownFile(environment: NodeJS.ProcessEnv): string | undefined {
  try {
    return path.join(environment['HOME'] || homedir(), '.npmrc')
  } catch {
    // A user without an entry among the users has no home.
    return undefined
  }
}

function readRegistry(file: string | undefined, environment: NodeJS.ProcessEnv): string | undefined {
  if (file === undefined) return undefined
  try {
    const value = /^\s*registry\s*=\s*"?([^\s"]+)"?\s*$/m.exec(readFileSync(file, 'utf8'))?.[1]
    return value?.replace(/\$\{(\w+)\}/g, (all, name: string) => environment[name] ?? all)
  } catch {
    return undefined
  }
}
