import { setUpTensorflow } from '@convoy/engine-tfjs'
import { ConvoyError } from '@convoy/errors'
import { EngineProcess } from './bench-engine.ts'
import { Display } from './display.ts'
import { EXIT } from './schemas.ts'
import { styleFor } from './train.ts'

/** `convoy setup tensorflow`: libtensorflow into the user's cache, and a gradient computed with it to see that it runs. */
export async function setUp(options: { json?: boolean; gpu?: boolean; from?: string }): Promise<number> {
  const { gpu = false, from = 'auto', json } = options
  if (from !== 'auto' && from !== 'package' && from !== 'pypi') {
    throw new ConvoyError('E_USAGE', `--from ${from} is not possible`, 'It takes auto, package or pypi.')
  }
  const display = new Display(styleFor(json), process.stdout)
  const progress = (text: string) => display.progress(text)
  const done = await setUpTensorflow({ gpu, from, progress })
  progress('computing gradients with it')
  // In a process of its own: a library that does not fit the machine ends it.
  const bench = new EngineProcess()
  const measure = (demand: boolean) =>
    bench.measure({
      engine: { engine: 'tfjs-tensorflow', precision: 'float32', threads: 1, device: 0, gpu: demand },
      leaf: 16,
      seconds: 1,
    })
  try {
    const { description, imagesPerSecond } = await measure(false)
    // Without a GPU (an image is built on such a machine, say) the set-up is whole all the same.
    const noGpu = gpu
      ? await measure(true).then(
          () => undefined,
          (error: Error) => error.message,
        )
      : undefined
    if (json) {
      const event = { event: 'setup', ...done, description, imagesPerSecond, ...(noGpu ? { noGpu } : {}) }
      process.stdout.write(`${JSON.stringify(event)}\n`)
    } else {
      display.say(`${done.already ? 'is set up ' : 'set up    '}  ${description}`)
      display.say(
        `from        ${done.from === 'pypi' ? 'the wheel on PyPI' : 'its install script'}, in ${done.folder}`,
      )
      display.say(`a trial     ${imagesPerSecond.toFixed(0)} images/s of All-CNN-C`)
      if (noGpu) display.say(`no GPU      ${noGpu}`)
    }
  } catch (error) {
    throw new ConvoyError(
      'E_SETUP',
      `libtensorflow is set up and does not run: ${(error as Error).message}`,
      `Remove ${done.folder} and run the same command again, or use another engine.`,
      { cause: error },
    )
  } finally {
    bench.close()
  }
  return EXIT.done
}
