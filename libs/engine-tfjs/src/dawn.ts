import { cacheDirectory } from '@convoy/download'
import type { EngineChoice } from '@convoy/engine'
import { ConvoyError } from '@convoy/errors'
import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import type { WebgpuEngine } from './webgpu.ts'
import type { WebgpuAdapter } from './webgpu-device.ts'

/** WebGPU in Node.js: Dawn, which Chromium has, of the npm package `webgpu`. It calls Vulkan, Metal or Direct3D 12. */

/** The version of the package that is set up here. */
export const WEBGPU = '0.6.2'

/** What a library of Dawn for Node.js exports. */
interface Dawn {
  create(flags: string[]): GPU
  readonly globals: Record<string, unknown>
}

/** An adapter that Dawn finds. */
export interface FoundAdapter {
  readonly name: string
  /** `vulkan`, `metal`, `d3d12`, … */
  readonly backend: string
  /** Computed by the CPU. */
  readonly software: boolean
}

/** Where `convoy setup webgpu` keeps Dawn. */
export function dawnFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return path.join(cacheDirectory(environment), 'webgpu', WEBGPU)
}

/** The folder of a platform's library in the package. */
export function dawnPlatform(): string {
  return `${process.platform}-${process.platform === 'darwin' ? 'universal' : process.arch}`
}

const require = createRequire(import.meta.url)

/** The library: of a package `webgpu` that was installed here, or of `convoy setup webgpu`. */
function dawnLibrary(): { file: string; version: string } | undefined {
  const below = path.join('dist', dawnPlatform(), 'dawn.node')
  try {
    const manifest = require.resolve('webgpu/package.json')
    const { version } = require(manifest) as { version: string }
    return { file: path.join(path.dirname(manifest), below), version }
  } catch {
    const file = path.join(dawnFolder(), below)
    return existsSync(file) ? { file, version: WEBGPU } : undefined
  }
}

/** Whether there is a Dawn to load. */
export function webgpuIsSetUp(): boolean {
  return dawnLibrary() !== undefined
}

let loaded: { dawn: Dawn; version: string } | undefined

/** Loads Dawn. Throws E_ENGINE where it was not set up, E_ENGINE_GPU where it does not load. */
function loadDawn(): { dawn: Dawn; version: string } {
  if (loaded) return loaded
  const library = dawnLibrary()
  if (!library)
    throw new ConvoyError(
      'E_ENGINE',
      'WebGPU is not set up',
      'Run `convoy setup webgpu`, or use --engine auto.',
    )
  try {
    const dawn = require(library.file) as Dawn
    // Constants such as GPUBufferUsage, which are global in a browser too.
    Object.assign(globalThis, dawn.globals)
    loaded = { dawn, version: library.version }
    return loaded
  } catch (error) {
    throw new ConvoyError(
      'E_ENGINE_GPU',
      `Dawn ${library.version} does not load: ${(error as Error).message.split('\n')[0]}`,
      'Run `convoy setup webgpu` again, or use another --engine.',
      { cause: error },
    )
  }
}

/** The drivers that compute on the CPU, by their names. */
const SOFTWARE = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|warp/i

const nothing = () =>
  new ConvoyError(
    'E_ENGINE_GPU',
    'WebGPU finds no GPU here',
    process.platform === 'linux'
      ? 'Install the loader and driver of Vulkan (Debian and Ubuntu: libvulkan1 and mesa-vulkan-drivers, or NVIDIA’s driver), or use another --engine.'
      : 'Update the driver of the GPU, or use another --engine.',
  )

/**
 * Whether a driver of Vulkan is installed, where the loader looks for its manifest (Khronos, "LoaderDriverInterface"). Without
 * one Dawn finds nothing, and writes of it on standard error whenever it is asked.
 */
export function hasVulkanDriver(environment: NodeJS.ProcessEnv = process.env): boolean {
  if (environment['VK_DRIVER_FILES'] || environment['VK_ICD_FILENAMES']) return true
  const { HOME = '', XDG_CONFIG_HOME, XDG_CONFIG_DIRS, XDG_DATA_HOME, XDG_DATA_DIRS } = environment
  const folders = [
    XDG_CONFIG_HOME || path.join(HOME, '.config'),
    ...(XDG_CONFIG_DIRS || '/etc/xdg').split(':'),
    '/etc',
    XDG_DATA_HOME || path.join(HOME, '.local/share'),
    ...(XDG_DATA_DIRS || '/usr/local/share:/usr/share').split(':'),
  ]
  return folders.some((folder) => {
    try {
      return readdirSync(path.join(folder, 'vulkan/icd.d')).some((name) => name.endsWith('.json'))
    } catch {
      return false
    }
  })
}

/**
 * What Dawn finds, the GPUs first and software last; the first is what WebGPU itself would take for speed. Empty where there is
 * none. Throws as `loadDawn` does.
 */
export async function webgpuAdapters(): Promise<FoundAdapter[]> {
  const { dawn } = loadDawn()
  if (process.platform === 'linux' && !hasVulkanDriver()) return []
  const preferred = (await dawn.create([]).requestAdapter({ powerPreference: 'high-performance' })) as
    (GPUAdapter & { info: GPUAdapterInfo }) | null
  if (!preferred) return []
  // WebGPU lists no adapters; Dawn does, where it is asked for one that is not there.
  const listed = await Promise.resolve()
    .then(() => dawn.create(['adapter=(none of this name)']).requestAdapter())
    .then(
      () => '',
      (error: Error) => error.message,
    )
  const found = [...listed.matchAll(/^ \* backend: '(.+?)', name: '(.+)'$/gm)].map(([, backend, name]) => ({
    backend,
    name,
    software: SOFTWARE.test(name),
  }))
  const rank = ({ name, software }: FoundAdapter) => (software ? 2 : name === preferred.info.device ? 0 : 1)
  return found.filter(({ backend }) => backend !== 'null').sort((a, b) => rank(a) - rank(b))
}

/** How many GPUs, not counting software. Never throws. */
export async function webgpuGpuCount(): Promise<number> {
  if (!webgpuIsSetUp() || (process.platform === 'linux' && !hasVulkanDriver())) return 0
  return webgpuAdapters().then(
    (adapters) => adapters.filter(({ software }) => !software).length,
    () => 0,
  )
}

/** Opens the adapter of a number in the list. Throws E_ENGINE_GPU. */
async function openAdapter({ device, gpu }: EngineChoice): Promise<WebgpuAdapter> {
  const found = await webgpuAdapters()
  if (found.length === 0) throw nothing()
  if (device >= found.length)
    throw new ConvoyError(
      'E_ENGINE_GPU',
      `there is no WebGPU adapter ${device}: this machine has ${found.length}`,
      'Number them from 0, as `convoy doctor` lists them.',
    )
  const { name, backend, software } = found[device]
  if (gpu && software)
    throw new ConvoyError(
      'E_ENGINE_GPU',
      `a GPU was asked for and would not be used: WebGPU finds ${name} only, which the CPU computes`,
      'Install the driver of the GPU, or leave out --gpu.',
    )
  const entry = loadDawn().dawn.create([`backend=${backend}`, `adapter=${name}`])
  // TensorFlow.js looks for it there.
  const { navigator = {} } = globalThis as { navigator?: object }
  Object.defineProperty(navigator, 'gpu', { value: entry, configurable: true })
  if (!('navigator' in globalThis)) Object.assign(globalThis, { navigator })
  const adapter = (await entry.requestAdapter()) as (GPUAdapter & { info: GPUAdapterInfo }) | null
  if (!adapter) throw nothing()
  // With the driver's version, which compiles what Dawn makes of the shaders.
  const driver = adapter.info.description
  const text = `${name.trim()}${driver && driver !== name ? ` (${driver})` : ''}, ${backend}`
  return { adapter, name: text.slice(0, 100), software }
}

/**
 * Makes the engine on WebGPU in Node.js. Throws E_ENGINE or E_ENGINE_GPU.
 *
 * @param warn Is told when the device is lost.
 */
export async function createDawnEngine(
  choice: EngineChoice,
  warn: (text: string) => void = (text) => console.warn(text),
): Promise<WebgpuEngine> {
  const { version } = loadDawn()
  const { createWebgpuEngine } = await import('./webgpu.ts')
  return createWebgpuEngine({
    open: () => openAdapter(choice),
    compiler: `Dawn ${version}`,
    warn,
  })
}
