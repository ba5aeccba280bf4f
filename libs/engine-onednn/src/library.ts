import { existsSync, readFileSync } from 'node:fs'
import { arch, platform } from 'node:os'
import { dirname, join } from 'node:path'
import koffi, { type LibraryHandle } from 'koffi'
import { ConvoyError } from '@convoy/errors'
import type { Calls, Handle } from './calls.ts'
import { calls2 } from './library2.ts'
import { calls3 } from './library3.ts'
import { canFetchOnednn, fetchedLibrary, OPENMP_NAME } from './setup.ts'

/**
 * Finds and loads oneDNN. The file is looked for, in order, in CONVOY_ONEDNN (which then must name a library that
 * loads), by the names that the system's loader knows, in the `lib` folder of the Python environment that is active, and
 * where it was fetched to (setup.ts).
 */

/** A loaded oneDNN. */
export interface OnednnLibrary {
  /** Such as `2.6.3`. */
  readonly version: string
  /** The name or path it was loaded by. */
  readonly path: string
  /** What oneDNN uses on this CPU, such as `avx512_core_bf16`. */
  readonly instructionSet: string
  /** Whether the CPU multiplies bf16 numbers. */
  readonly bf16: boolean
  /** What `auto` takes: bf16 where the CPU has it and is faster with it. */
  readonly faster: 'float32' | 'bf16'
  readonly calls: Calls
  /**
   * Sets how many threads the primitives made and executed by the calling thread use. Throws E_ENGINE where this build
   * of oneDNN leaves that to no one (it was built for TBB or SYCL).
   */
  setThreads(threads: number): void
}

/** What `convoy doctor` tells. */
export type OnednnStatus =
  | {
      readonly found: true
      readonly version: string
      readonly path: string
      readonly instructionSet: string
      readonly bf16: boolean
      /** What `auto` takes. */
      readonly faster: 'float32' | 'bf16'
    }
  | {
      readonly found: false
      /** Why, as a sentence. */
      readonly reason: string
      /** The one command that installs it on this machine. */
      readonly install: string
    }

const RUNTIME = { sequential: 1, openMp: 2 } as const

/** `dnnl_cpu_isa_t`, best first; 0x407 is what 2.x calls avx2_vnni, 0x3e7 its AMX. */
const instructionSets: readonly (readonly [bits: number, name: string])[] = [
  [0x1fef, 'avx512_core_amx_fp16'],
  [0xfef, 'avx512_core_amx'],
  [0x3e7, 'avx512_core_amx'],
  [0x1ef, 'avx512_core_fp16'],
  [0xe7, 'avx512_core_bf16'],
  [0x67, 'avx512_core_vnni'],
  [0x27, 'avx512_core'],
  [0x1f, 'avx2_vnni_2'],
  [0x0f, 'avx2_vnni'],
  [0x407, 'avx2_vnni'],
  [0x07, 'avx2'],
  [0x03, 'avx'],
  [0x01, 'sse41'],
]
const BF16_BITS = 0xe7

const fileNames: Partial<Record<NodeJS.Platform, readonly string[]>> = {
  linux: ['libdnnl.so.3', 'libdnnl.so.2', 'libdnnl.so'],
  darwin: ['libdnnl.3.dylib', 'libdnnl.2.dylib', 'libdnnl.dylib'],
  win32: ['dnnl.dll'],
}

/** Names to try, the first that loads wins. Homebrew's folders are not on the loader's path. */
function candidates(): string[] {
  const asked = process.env['CONVOY_ONEDNN']
  if (asked) return [asked]
  const names = fileNames[platform()] ?? fileNames.linux!
  const folders = platform() === 'darwin' ? ['/opt/homebrew/lib', '/usr/local/lib'] : []
  // The wheels put the library into the environment's own lib folder.
  for (const variable of ['VIRTUAL_ENV', 'CONDA_PREFIX']) {
    const prefix = process.env[variable]
    if (prefix) folders.push(join(prefix, platform() === 'win32' ? 'Library/bin' : 'lib'))
  }
  const inFolders = folders.flatMap((folder) => names.map((name) => join(folder, name)))
  const fetched = fetchedLibrary()
  return [...names, ...inFolders.filter((file) => existsSync(file)), ...(fetched ? [fetched] : [])]
}

const readIfThere = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8') : '')

/** The command that installs oneDNN here. */
function installCommand(): string {
  switch (platform()) {
    case 'darwin':
      return 'brew install onednn'
    case 'win32':
      return 'pip install onednn-cpu-vcomp'
    default:
  }
  if (canFetchOnednn()) return './convoy setup onednn'
  const release = readIfThere('/etc/os-release')
  if (/^ID(_LIKE)?=.*(fedora|rhel|centos)/m.test(release)) return 'dnf install onednn'
  if (/^ID(_LIKE)?=.*(debian|ubuntu)/m.test(release)) {
    // Debian 13 and Ubuntu 24.10 came with 3.x, and the package's name carries the major version.
    const version = Number(/^VERSION_ID="?(\d+(\.\d+)?)/m.exec(release)?.[1])
    const three = /^ID=ubuntu/m.test(release) ? version >= 24.1 : version >= 13
    return `apt-get install ${three ? 'libdnnl3' : 'libdnnl2'}`
  }
  // PyPI has none for other processors, and none without glibc; TensorFlow's has oneDNN inside.
  return './convoy setup tensorflow'
}

/**
 * Keeps a shared library in the process for good. koffi unloads libraries as its environment goes, and with them the
 * OpenMP runtime under threads that still sleep in it: without this a process with more than one thread crashes at its end.
 */
function pin(path: string): void {
  if (platform() === 'win32') return
  const NOW = 2
  const NO_DELETE = platform() === 'darwin' ? 0x80 : 0x1000
  const open = koffi.load(null).func('void *dlopen(const char *file, int flags)')
  open(path, NOW | NO_DELETE)
}

/** Loads the OpenMP that lies beside a library: by its name, the loader then knows that it is there. */
function loadOpenMp(path: string): void {
  const file = join(dirname(path), OPENMP_NAME)
  if (path !== fetchedLibrary() || !existsSync(file)) return
  koffi.load(file)
  pin(file)
}

function loadFrom(path: string): OnednnLibrary {
  loadOpenMp(path)
  const library = koffi.load(path)
  pin(path)
  const versionAt = library.func('void *dnnl_version()')() as Handle
  const [major, minor, patch] = koffi.decode(versionAt, 'int', 3) as Int32Array
  const version = `${major}.${minor}.${patch}`
  if (major !== 2 && major !== 3) {
    throw new ConvoyError(
      'E_ENGINE',
      `oneDNN ${version} at ${path} is neither 2.x nor 3.x`,
      `Install one of those: ${installCommand()}`,
    )
  }
  // struct { int major, minor, patch; const char *hash; unsigned cpu_runtime, gpu_runtime; }
  const runtime = koffi.decode(versionAt, 24, 'unsigned int') as number
  const bits = library.func('int dnnl_get_effective_cpu_isa()')() as number
  const bf16 = (bits & BF16_BITS) === BF16_BITS
  return {
    version,
    path,
    instructionSet: instructionSets.find(([set]) => (bits & set) === set)?.[1] ?? arch(),
    bf16,
    faster: bf16 && !slowInBf16(readIfThere('/proc/cpuinfo')) ? 'bf16' : 'float32',
    calls: major === 2 ? calls2(library) : calls3(library),
    setThreads: threadSetter(library, runtime, path),
  }
}

/**
 * Whether a CPU, by its /proc/cpuinfo, has bf16 and is slower with it than in float32: Intel's that are made for AMX (those with
 * AVX-512 for float16) where a virtual machine hides it. What is left is vdpbf16ps at half the rate of float32 (52 beside 93
 * images/s on Emerald Rapids); AMD's Zen 4 and 5 do twice that of float32. Known and not measured when a worker starts, since all
 * workers on one machine must take the same.
 */
export function slowInBf16(cpu: string): boolean {
  return /GenuineIntel/.test(cpu) && /\bavx512_fp16\b/.test(cpu) && !/\bamx_bf16\b/.test(cpu)
}

function threadSetter(library: LibraryHandle, runtime: number, path: string): (threads: number) => void {
  if (runtime === RUNTIME.openMp) {
    // The loader looks in the libraries that oneDNN needs as well, so this finds the OpenMP that it uses, whichever it is.
    const from = platform() === 'win32' ? koffi.load('vcomp140.dll') : library
    return from.func('void omp_set_num_threads(int threads)')
  }
  return (threads) => {
    if (runtime === RUNTIME.sequential && threads === 1) return
    throw new ConvoyError(
      'E_ENGINE',
      `oneDNN at ${path} was built without OpenMP, so its threads cannot be set to ${threads}`,
      'Install a build for OpenMP: the system’s package, or pip install onednn-cpu-gomp; CONVOY_ONEDNN names its file.',
    )
  }
}

let loaded: OnednnLibrary | undefined

/**
 * Loads oneDNN, once for each thread of JavaScript. Throws E_ENGINE, with the command that installs it, where there is
 * none that loads; it may be there the next time.
 */
export function loadOnednn(): OnednnLibrary {
  return (loaded ??= load())
}

function load(): OnednnLibrary {
  const reasons: string[] = []
  for (const path of candidates()) {
    try {
      return loadFrom(path)
    } catch (error) {
      if (error instanceof ConvoyError) throw error
      reasons.push(`${path}: ${error instanceof Error ? error.message : String(error)}`)
    }
  }
  const asked = process.env['CONVOY_ONEDNN']
  throw new ConvoyError(
    'E_ENGINE',
    asked ? `CONVOY_ONEDNN names no library that loads (${reasons[0]})` : 'oneDNN is not installed',
    `Install it with: ${installCommand()}`,
  )
}

/** Whether this machine has oneDNN and what it would use; never throws. */
export function onednnStatus(): OnednnStatus {
  try {
    const { version, path, instructionSet, bf16, faster } = loadOnednn()
    return { found: true, version, path: resolvePath(path), instructionSet, bf16, faster }
  } catch (error) {
    return {
      found: false,
      reason: error instanceof Error ? error.message : String(error),
      install: installCommand(),
    }
  }
}

/** The file that a library's name was resolved to, where the system can tell. */
function resolvePath(name: string): string {
  if (name.includes('/') || platform() !== 'linux') return name
  const line = readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .find((mapping) => mapping.includes(`/${name.replace(/\.\d+$/, '')}`))
  return line?.slice(line.indexOf('/')) ?? name
}
