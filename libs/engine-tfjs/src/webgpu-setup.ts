import { fetchPackage, install, unpackPackage, type NpmPackage } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { dawnFolder, dawnPlatform, WEBGPU } from './dawn.ts'

/** Puts Dawn into the user's cache: the npm package `webgpu`, of which only this platform's library is kept. */

const PACKAGE = {
  name: 'webgpu',
  version: WEBGPU,
  sha256: '77a6be6513b9f7c2e94425620ce603efb38cdc5d0393e1b31a1b0c8479330ffd',
}

/** The platforms that the package has a library for. */
const PLATFORMS = ['linux-x64', 'linux-arm64', 'darwin-universal', 'win32-x64', 'win32-arm64']

export interface WebgpuSetupOptions {
  readonly progress: (text: string) => void
  readonly environment?: NodeJS.ProcessEnv
  /** No answer within this is a no, in milliseconds. */
  readonly timeout: number
  /** For tests: another package. */
  readonly archive?: NpmPackage
}

/** What is set up, and where. */
export interface WebgpuSetupResult {
  readonly folder: string
  /** Whether it was there already. */
  readonly already: boolean
}

/**
 * Sets WebGPU up in the user's cache. What is there already is left as it is, a broken fetch goes on where it stopped, and of
 * several processes one fetches while the others wait. Throws E_SETUP with what stands in the way.
 */
export async function setUpWebgpu(options: WebgpuSetupOptions): Promise<WebgpuSetupResult> {
  const { progress, archive = PACKAGE, environment = process.env } = options
  const platform = dawnPlatform()
  if (!PLATFORMS.includes(platform))
    throw new ConvoyError(
      'E_SETUP',
      `the npm package webgpu has no library for ${platform}`,
      `It has them for ${PLATFORMS.join(', ')}.`,
    )
  const folder = dawnFolder(environment)
  const library = path.join(folder, 'dist', platform)
  const fetching = { ...options, environment, room: '200 MB' }
  const make = async (unfinished: string) => {
    const file = await fetchPackage(archive, path.dirname(folder), fetching)
    progress('unpacking')
    const wanted = (name: string) => name.startsWith(`dist/${platform}/`) || name === 'LICENSE.md'
    await unpackPackage(file, unfinished, wanted)
    if (!existsSync(path.join(unfinished, 'dist', platform, 'dawn.node')))
      throw new Error(`there is no library for ${platform} in it`)
    await rm(file)
  }
  return { folder, already: await install('WebGPU', folder, () => existsSync(library), make, fetching) }
}
