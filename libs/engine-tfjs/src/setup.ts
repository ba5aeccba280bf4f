import { fetchWheel, makeFolder, request, unzip, type Wheel } from '@convoy/download'
import { ConvoyError } from '@convoy/errors'
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { mkdir, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { arch, platform } from 'node:os'
import path from 'node:path'
import { PACKAGES, SETUP_RECORD, tensorflowFolder } from './libtensorflow.ts'

/**
 * Puts @tensorflow/tfjs-node and a libtensorflow into the user's cache. The package's own install script fetches libtensorflow
 * 2.9.1 and a binding that was built for it. Where its address is not in reach, the official wheel of TensorFlow from PyPI has
 * the same C API, of a version of today, and the package's binding is compiled against that.
 */

const TFJS_NODE = '4.22.0'
/** Node.js's own headers of its stable C API, so that none need be fetched for the Node.js that runs. */
const NODE_HEADERS = '1.9.0'
/** The newest TensorFlow whose wheels run on any glibc since 2.17. */
const TENSORFLOW = '2.20.0'
/** Which CPython the wheel is for makes no difference to the library in it. */
const TAG = `${TENSORFLOW}-cp312-cp312-manylinux_2_17`

const wheels: Readonly<Record<string, Wheel>> = {
  'x64 cpu': {
    project: 'tensorflow-cpu',
    file: `tensorflow_cpu-${TAG}_x86_64.manylinux2014_x86_64.whl`,
    sha256: 'c7a9224185818094ed95c4e114d3efe77241db35fbf0b75251fb2bf6222dd6a7',
  },
  'x64 gpu': {
    project: 'tensorflow',
    file: `tensorflow-${TAG}_x86_64.manylinux2014_x86_64.whl`,
    sha256: '25265b0bc527e0d54b1e9cc60c44a24f44a809fe27666b905f0466471f9c52ec',
  },
  'arm64 cpu': {
    project: 'tensorflow',
    file: `tensorflow-${TAG}_aarch64.manylinux2014_aarch64.whl`,
    sha256: '2bfbfb3dd0e22bffc45fe1e922390d27753e99261fab8a882e802cf98a0e078f',
  },
}

/** What of a wheel is needed: the libraries, and what the binding includes. */
const LIBRARIES = /^tensorflow\/(libtensorflow_(?:cc|framework)\.so\.2)$/
const HEADERS = /^tensorflow\/include\/((?:tensorflow\/c|tensorflow\/core\/platform|tsl|xla\/tsl)\/.*\.h)$/

/** Milliseconds without an answer after which an address counts as not in reach. */
const PATIENCE = 10_000

export interface SetupOptions {
  /** The one that can use an NVIDIA GPU. */
  readonly gpu: boolean
  /** `package`: its own install script; `pypi`: the wheel; `auto`: the former where its address is in reach. */
  readonly from: 'auto' | 'package' | 'pypi'
  readonly progress: (text: string) => void
  readonly environment?: NodeJS.ProcessEnv
}

/** What is set up, and where. */
export interface SetupResult {
  readonly folder: string
  readonly from: 'package' | 'pypi'
  /** Whether it was there already. */
  readonly already: boolean
}

const fail = (message: string, remedy: string, cause?: unknown) =>
  new ConvoyError('E_SETUP', message, remedy, { cause })

/**
 * Sets libtensorflow up for the engine `tfjs-tensorflow`. What is there already is left as it is, and a broken fetch goes on
 * where it stopped. Throws E_SETUP with what is missing.
 */
export async function setUpTensorflow(options: SetupOptions): Promise<SetupResult> {
  const { gpu, from, progress } = options
  const environment = options.environment ?? process.env
  const name = PACKAGES[gpu ? 0 : 1]
  const folder = tensorflowFolder(name, environment)
  const record = path.join(folder, SETUP_RECORD)
  const versions = `${TFJS_NODE}, ${TENSORFLOW}`
  const had = readRecord(record)
  if (had?.versions === versions && (from === 'auto' || from === had.from))
    return { folder, from: had.from, already: true }

  const own = from === 'package' || (from === 'auto' && (await packageAnswers(gpu, environment)))
  // What is missing is told before hundreds of megabytes are fetched.
  if (!own) checkForWheel(gpu, environment)
  await makeFolder(folder)
  await rm(record, { force: true })
  await writeFile(path.join(folder, 'package.json'), '{ "private": true }\n')
  progress(`installing ${name} ${TFJS_NODE}`)
  // Its scripts are not run here: the one that fetches libtensorflow fails where that is not in reach.
  const install = [
    'install',
    '--ignore-scripts',
    '--no-audit',
    '--no-fund',
    '--loglevel=error',
    '--save-exact',
  ]
  await run(
    'npm',
    [...install, `${name}@${TFJS_NODE}`, `node-api-headers@${NODE_HEADERS}`],
    folder,
    environment,
    'Check that npm reaches its registry (npm ping), then run the same command again.',
  )
  const home = path.join(folder, 'node_modules', name)
  const finish = async (source: 'package' | 'pypi'): Promise<SetupResult> => {
    await writeFile(record, `${JSON.stringify({ from: source, versions })}\n`)
    return { folder, from: source, already: false }
  }
  if (own) {
    progress(`the install script of ${name} fetches libtensorflow 2.9.1 and its binding`)
    try {
      await run(
        'npm',
        ['rebuild', '--foreground-scripts', name],
        folder,
        environment,
        'Use --from pypi, or see with --verbose what it printed.',
      )
      return await finish('package')
    } catch (error) {
      if (from === 'package') throw error
      progress('that failed; the wheel of TensorFlow from PyPI serves as well')
    }
  }
  await setUpFromWheel(home, folder, options, environment)
  return finish('pypi')
}

function readRecord(file: string): { from: 'package' | 'pypi'; versions: string } | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as { from: 'package' | 'pypi'; versions: string }
  } catch {
    return undefined
  }
}

/** Whether the address that the package's scripts/install.js fetches from answers. */
async function packageAnswers(gpu: boolean, environment: NodeJS.ProcessEnv): Promise<boolean> {
  const host = environment['TFJS_NODE_CDN_STORAGE'] || 'https://storage.googleapis.com/'
  const base = environment['TFJS_NODE_BASE_URI'] || `${host}tensorflow/libtensorflow/libtensorflow-`
  try {
    const url = `${base}${gpu ? 'gpu' : 'cpu'}-linux-x86_64-2.9.1.tar.gz`
    const signal = AbortSignal.timeout(PATIENCE)
    return (await request(url, { method: 'HEAD', signal }, environment)).ok
  } catch {
    return false
  }
}

/** The wheel for this machine, and the compiler for the binding. Throws E_SETUP where there is none. */
function checkForWheel(gpu: boolean, environment: NodeJS.ProcessEnv): { wheel: Wheel; compiler: string } {
  const wheel = platform() === 'linux' ? wheels[`${arch()} ${gpu ? 'gpu' : 'cpu'}`] : undefined
  if (!wheel) {
    throw fail(
      `there is no libtensorflow ${TENSORFLOW}${gpu ? ' for GPUs' : ''} for ${platform()} ${arch()} on PyPI`,
      'Use --from package, or another engine.',
    )
  }
  const compiler = environment['CXX'] || 'c++'
  if (spawnSync(compiler, ['--version'], { env: environment }).status !== 0) {
    throw fail(
      `the binding must be compiled, and there is no C++ compiler (${compiler})`,
      'Install one (Debian and Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++), or name it in CXX.',
    )
  }
  return { wheel, compiler }
}

async function setUpFromWheel(
  home: string,
  folder: string,
  { gpu, progress }: SetupOptions,
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  const { wheel, compiler } = checkForWheel(gpu, environment)
  const unpacked = path.join(home, 'deps', wheel.file)
  if (!existsSync(unpacked)) {
    const file = await fetchWheel(wheel, folder, { progress, environment, timeout: PATIENCE, room: '2 GB' })
    await rm(path.join(home, 'deps'), { recursive: true, force: true })
    await unpack(file, path.join(home, 'deps'), progress)
    await writeFile(unpacked, '')
    await rm(file)
  }
  progress('compiling the binding, about 10 s')
  await compileBinding(compiler, home, folder, environment)
}

/** Lays libraries and headers of a wheel out as the package expects them: deps/lib and deps/include. */
async function unpack(file: string, deps: string, progress: (text: string) => void): Promise<void> {
  const target = (name: string): string | undefined => {
    const library = LIBRARIES.exec(name)?.[1]
    const header = HEADERS.exec(name)?.[1]
    if (library !== undefined) return path.join(deps, 'lib', library)
    return header === undefined ? undefined : path.join(deps, 'include', header)
  }
  try {
    for (const written of await unzip(file, target, progress)) {
      // The names that the linker looks for.
      const short = written.replace('_cc', '').replace('.so.2', '.so')
      if (short !== written) await symlink(path.basename(written), short)
    }
  } catch (error) {
    throw fail(
      `${path.basename(file)} cannot be unpacked: ${(error as Error).message}`,
      `Check that ${deps} is writable and has 2 GB of space, then run the same command again.`,
      error,
    )
  }
}

/** What the package's binding.gyp says, in one call of the compiler: no Python, make or headers of this Node.js are needed. */
async function compileBinding(
  compiler: string,
  home: string,
  folder: string,
  environment: NodeJS.ProcessEnv,
): Promise<void> {
  const target = path.join(home, 'lib', 'napi-v8', 'tfjs_binding.node')
  await mkdir(path.dirname(target), { recursive: true })
  const defines = ['NAPI_VERSION=8', 'BUILDING_NODE_EXTENSION', 'NODE_GYP_MODULE_NAME=tfjs_binding']
  await run(
    compiler,
    [
      ...['-std=c++17', '-O2', '-fPIC', '-shared', '-w'],
      ...defines.map((define) => `-D${define}`),
      ...['-I', path.join(folder, 'node_modules', 'node-api-headers', 'include'), '-I', 'deps/include'],
      ...['binding/tfjs_backend.cc', 'binding/tfjs_binding.cc', '-o', `${target}.tmp`],
      ...['-L', 'deps/lib', '-ltensorflow', '-ltensorflow_framework', '-Wl,-rpath,$ORIGIN/../../deps/lib'],
    ],
    home,
    environment,
    'The compiler must know C++17: g++ 9 or clang 10 at least. --verbose shows what it said.',
  )
  await rename(`${target}.tmp`, target)
}

/** Runs a program. Throws E_SETUP with its last line where it fails, and all that it printed as the cause. */
async function run(
  command: string,
  args: string[],
  cwd: string,
  env: NodeJS.ProcessEnv,
  remedy: string,
): Promise<void> {
  const child = spawn(command, args, {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    shell: platform() === 'win32',
  })
  let printed = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (printed += text))
  const code = await new Promise<number | string>((resolve) => {
    child.once('error', (error) => resolve(error.message))
    child.once('close', (status, signal) => resolve(status ?? signal!))
  })
  if (code === 0) return
  const told = printed.split('\n').find((line) => /error/i.test(line)) ?? printed.trim().split('\n').at(-1)
  throw fail(`${path.basename(command)} ended with ${code}: ${told}`, remedy, new Error(printed))
}
