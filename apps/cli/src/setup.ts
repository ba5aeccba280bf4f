import * as onednn from '@convoy/engine-onednn'
import * as tfjs from '@convoy/engine-tfjs'
import { ConvoyError } from '@convoy/errors'
import { Display, styleFor } from './display.ts'
import { EngineProcess } from './engine-process.ts'
import type { Measured } from './measure-engine.ts'
import { EXIT } from './schemas.ts'

/** No answer within this is a no, in milliseconds. */
const PATIENCE = 10_000

/** Images/s of an engine that was set up. Throws what the engine throws, or an Error where it ends its process. */
async function tryOut(engine: string, gpu = false): Promise<Measured> {
  // In a process of its own: a library that does not fit the machine ends it.
  const bench = new EngineProcess()
  const precision = engine === 'onednn' ? 'auto' : 'float32'
  try {
    return await bench.measure({
      engine: { engine, precision, threads: 1, device: 0, gpu },
      leaf: 16,
      seconds: 1,
    })
  } finally {
    bench.close()
  }
}

/** What a set-up came to: an event for a program, lines for a person. */
interface Told {
  readonly already: boolean
  readonly folder: string
  /** In words. */
  readonly from: string
  /** A GPU that was asked for and does not run. */
  readonly noGpu?: string | undefined
}

function tell(
  { already, folder, from, noGpu }: Told,
  { description, imagesPerSecond }: Measured,
  event: object | undefined,
  display: Display,
): void {
  if (event) {
    const measured = { description, imagesPerSecond, ...(noGpu ? { noGpu } : {}) }
    process.stdout.write(`${JSON.stringify({ event: 'setup', ...event, ...measured })}\n`)
    return
  }
  display.say(`${already ? 'is set up ' : 'set up    '}  ${description}`)
  display.say(`from        ${from}, in ${folder}`)
  display.say(`a trial     ${imagesPerSecond.toFixed(0)} images/s of All-CNN-C`)
  if (noGpu) display.say(`no GPU      ${noGpu}`)
}

/** E_SETUP for a library that is there and does not run. */
function doesNotRun(library: string, folder: string, error: unknown): ConvoyError {
  return new ConvoyError(
    'E_SETUP',
    `${library} is set up and does not run: ${(error as Error).message}`,
    `Remove ${folder} and run the same command again, or use another engine.`,
    { cause: error },
  )
}

/** `convoy setup onednn`: oneDNN into the user's cache, and a gradient computed with it to see that it runs. */
export async function setUpOnednn({ json }: { json?: boolean }): Promise<number> {
  const display = new Display(styleFor(json), process.stdout)
  const progress = (text: string) => display.progress(text)
  const done = await onednn.setUpOnednn({ progress, timeout: PATIENCE })
  progress('computing gradients with it')
  const own = onednn.onednnStatus()
  try {
    // The system's own would be taken first.
    process.env['CONVOY_ONEDNN'] ??= done.library
    const measured = await tryOut('onednn')
    tell({ ...done, from: 'wheels on PyPI' }, measured, json ? done : undefined, display)
  } catch (error) {
    throw doesNotRun('oneDNN', done.folder, error)
  }
  if (own.found && own.path !== done.library) display.say(`taken first ${own.version} at ${own.path}`)
  return EXIT.done
}

/** `convoy setup webgpu`: Dawn into the user's cache, and a gradient computed with it where there is an adapter. */
export async function setUpWebgpu({ json }: { json?: boolean }): Promise<number> {
  const display = new Display(styleFor(json), process.stdout)
  const done = await tfjs.setUpWebgpu({ progress: (text) => display.progress(text), timeout: PATIENCE })
  const adapters = await tfjs.webgpuAdapters()
  if (adapters.length === 0) {
    // On such a machine an image is built, say: the set-up is whole all the same.
    const noGpu = 'no adapter: Vulkan and a driver are missing; ./convoy doctor says more'
    if (json) process.stdout.write(`${JSON.stringify({ event: 'setup', ...done, noGpu })}\n`)
    else display.say(`${done.already ? 'is set up' : 'set up'} in ${done.folder}; ${noGpu}`)
    return EXIT.done
  }
  display.progress('computing gradients with it')
  try {
    const measured = await tryOut('webgpu')
    tell({ ...done, from: 'the npm package webgpu' }, measured, json ? done : undefined, display)
  } catch (error) {
    throw doesNotRun('WebGPU', done.folder, error)
  }
  return EXIT.done
}

/** `convoy setup tensorflow`: libtensorflow into the user's cache, and a gradient computed with it to see that it runs. */
export async function setUpTensorflow(options: {
  json?: boolean
  gpu?: boolean
  from?: string
}): Promise<number> {
  const { gpu = false, from = 'auto', json } = options
  if (from !== 'auto' && from !== 'package' && from !== 'pypi') {
    throw new ConvoyError('E_USAGE', `--from ${from} is not possible`, 'It takes auto, package or pypi.')
  }
  const display = new Display(styleFor(json), process.stdout)
  const progress = (text: string) => display.progress(text)
  const done = await tfjs.setUpTensorflow({ gpu, from, progress })
  progress('computing gradients with it')
  try {
    const measured = await tryOut('tfjs-tensorflow')
    // Without a GPU (an image is built on such a machine, say) the set-up is whole all the same.
    const noGpu = gpu
      ? await tryOut('tfjs-tensorflow', true).then(
          () => undefined,
          (error: Error) => error.message,
        )
      : undefined
    const source = done.from === 'pypi' ? 'the wheel on PyPI' : 'its install script'
    tell({ ...done, from: source, noGpu }, measured, json ? done : undefined, display)
  } catch (error) {
    throw doesNotRun('libtensorflow', done.folder, error)
  }
  return EXIT.done
}
