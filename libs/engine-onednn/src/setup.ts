import { cacheDirectory, fetchWheel, install, unzip, type FetchOptions, type Wheel } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { existsSync } from 'node:fs'
import { chmod, readFile, rm, writeFile } from 'node:fs/promises'
import { arch, platform } from 'node:os'
import path from 'node:path'

/**
 * Puts oneDNN into the user's cache, from PyPI: the newest wheel there that needs nothing but an OpenMP (newer ones want SYCL and
 * Intel's runtimes), and GCC's OpenMP, which a bare system lacks, from the smallest wheel that holds one.
 */

const ONEDNN: Wheel = {
  project: 'onednn-cpu-gomp',
  file: 'onednn_cpu_gomp-2023.2.0-py2.py3-none-manylinux1_x86_64.whl',
  sha256: '2f22a54d6a890ed14bfa185d42a4be65d8b5b1df85dc1f0f3a9abe31620416fb',
}
const OPENMP: Wheel = {
  project: 'pykdtree',
  file: 'pykdtree-1.4.3-cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl',
  sha256: '44d2e1b6a3d02b5cf9646bf754931fdacb869cefd328242766e1dc0be909cca1',
}
/** What to unpack. */
const ONEDNN_ENTRY = /\/lib\/libdnnl\.so\.3$/
const OPENMP_ENTRY = /^pykdtree\.libs\/(libgomp-[^/]+)$/

/** The files of a set-up. */
const LIBRARY = 'libdnnl.so.3'
/** By this name oneDNN asks the loader for OpenMP. */
export const OPENMP_NAME = 'libgomp.so.1'

export interface SetupOptions {
  readonly progress: (text: string) => void
  readonly environment?: NodeJS.ProcessEnv
  /** No answer within this is a no, in milliseconds. */
  readonly timeout: number
  readonly signal?: AbortSignal
  /** For tests: other wheels. */
  readonly wheels?: readonly [onednn: Wheel, openMp: Wheel]
}

/** What is set up, and where. */
export interface SetupResult {
  readonly folder: string
  /** The file to load. */
  readonly library: string
  /** Whether it was there already. */
  readonly already: boolean
}

function folderOf(environment: NodeJS.ProcessEnv): string {
  return path.join(cacheDirectory(environment), 'onednn', ONEDNN.file.split('-')[1])
}

/** The library that was set up, where it is whole. */
export function fetchedLibrary(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  const file = path.join(folderOf(environment), LIBRARY)
  return existsSync(file) ? file : undefined
}

/** Whether PyPI has a oneDNN for this machine: Linux on x64 with glibc. */
export function canFetchOnednn(): boolean {
  if (platform() !== 'linux' || arch() !== 'x64') return false
  // Else it looks up the names of all addresses that this process is connected to.
  Object.assign(process.report, { excludeNetwork: true })
  const { header } = process.report.getReport() as { header: { glibcVersionRuntime?: string } }
  return header.glibcVersionRuntime !== undefined
}

/**
 * Sets oneDNN up in the user's cache. What is there already is left as it is, a broken fetch goes on where it stopped, and of
 * several processes one fetches while the others wait. Throws E_SETUP with what stands in the way.
 */
export async function setUpOnednn(options: SetupOptions): Promise<SetupResult> {
  const environment = options.environment ?? process.env
  const folder = folderOf(environment)
  const library = path.join(folder, LIBRARY)
  const isThere = () => existsSync(library)
  if (!isThere() && !canFetchOnednn()) {
    throw new ConvoyError(
      'E_SETUP',
      `PyPI has no oneDNN for ${platform()} ${arch()} that needs nothing else`,
      'Run convoy doctor: it says what is best here.',
    )
  }
  const fetching = { ...options, environment, room: '120 MB' }
  const already = await install(
    'oneDNN',
    folder,
    isThere,
    (unfinished) => fetchAndUnpack(path.dirname(folder), unfinished, options.wheels, fetching),
    fetching,
  )
  return { folder, library, already }
}

async function fetchAndUnpack(
  home: string,
  into: string,
  [onednnWheel, openMpWheel]: readonly [Wheel, Wheel] = [ONEDNN, OPENMP],
  options: FetchOptions,
): Promise<void> {
  const { progress } = options
  // The small one first: what is amiss with the network shows with it.
  const openMp = await fetchWheel(openMpWheel, home, options)
  const onednn = await fetchWheel(onednnWheel, home, options)
  const library = path.join(into, LIBRARY)
  const runtime = path.join(into, OPENMP_NAME)
  let packedName = ''
  const runtimeOf = (name: string): string | undefined => {
    const found = OPENMP_ENTRY.exec(name)?.[1]
    packedName = found ?? packedName
    return found === undefined ? undefined : runtime
  }
  await unzip(openMp, runtimeOf, progress)
  await unzip(onednn, (name) => (ONEDNN_ENTRY.test(name) ? library : undefined), progress)
  await writeFile(runtime, renamed(await readFile(runtime), packedName))
  for (const file of [library, runtime]) await chmod(file, 0o755)
  for (const file of [openMp, onednn]) await rm(file)
}

/**
 * A library with its own name back. Python's tools gave it another one, which the loader compares with what oneDNN asks for; in
 * the file's table of names there is room for the shorter one.
 */
function renamed(library: Buffer, packedName: string): Buffer {
  const at = library.indexOf(`${packedName}\0`)
  if (at < 0) throw new Error(`${packedName} does not name itself`)
  library.fill(0, at, at + packedName.length)
  library.write(OPENMP_NAME, at)
  return library
}
