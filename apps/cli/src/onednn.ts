import { isOffline } from '@convoy/download'
import { asConvoyError } from '@convoy/errors'
import { existsSync, readFileSync } from 'node:fs'
import type { Display } from './display.ts'

/** No answer within this is a no, in milliseconds: training starts without oneDNN then. */
const PATIENCE = 3_000

/** What WebAssembly costs on this machine, in words: measured on Zen 4 and 5 in bf16, an Intel with AVX-512 in float32, and Zen 3. */
export function slowness(): string {
  const cpu = existsSync('/proc/cpuinfo') ? readFileSync('/proc/cpuinfo', 'utf8') : ''
  const fastInBf16 = /\bamx_bf16\b/.test(cpu) || (/AuthenticAMD/.test(cpu) && /\bavx512_bf16\b/.test(cpu))
  return `about ${fastInBf16 ? 9 : /\bavx512f\b/.test(cpu) ? 7 : 4} times slower`
}

/**
 * Fetches oneDNN, once, where this machine would compute with it and has none; where that fails, or it does not load, a line says what it costs.
 *
 * Throws E_SETUP where it fails and the engine was named.
 */
export async function bringOnednn(
  { engine, gpu }: { readonly engine: string; readonly gpu: boolean },
  display: Display,
  signal?: AbortSignal,
): Promise<void> {
  const given = process.env['CONVOY_ONEDNN']
  // What was named is not fetched; a worker that was told to use it says what is wrong with it.
  if (gpu || (engine !== 'auto' && (engine !== 'onednn' || given))) return
  // Loaded here only: a coordinator's image has no engines, and a worker's not all of them.
  const library = await import('@convoy/engine-onednn').catch(() => undefined)
  const status = library?.onednnStatus()
  if (!library || !status || status.found) return
  if (engine === 'auto' && (await hasOther())) return
  const other = await import('@convoy/engine-tfjs').then(
    ({ tensorflowIsSetUp }) =>
      tensorflowIsSetUp() ? 'libtensorflow' : `WebAssembly, ${slowness()} than oneDNN`,
    () => 'no other engine',
  )
  const without = (reason: string) =>
    display.show({
      event: 'slowEngine',
      reason: `${other}: oneDNN ${reason}; ./convoy doctor says what to do`,
    })
  if (given) return without(`is not loaded, ${status.reason}`)
  if (!library.canFetchOnednn()) return without('is not installed')
  if (isOffline(process.env) && engine === 'auto')
    return without('is not installed and not fetched while offline')
  try {
    const { folder } = await library.setUpOnednn({
      progress: (text) => display.progress(text),
      timeout: PATIENCE,
      ...(signal ? { signal } : {}),
    })
    display.say(`engine     oneDNN was fetched into ${folder}`)
    const fetched = library.onednnStatus()
    // Nothing may be run from where the cache is, or an older one of the system is in the way.
    if (!fetched.found && engine === 'auto') without(`is not loaded, ${fetched.reason}`)
  } catch (error) {
    if (signal?.aborted) return
    if (engine === 'onednn') throw error
    without(`could not be fetched (${asConvoyError(error).message})`)
  }
}

/** Whether `auto` would take an engine that is no slower. */
async function hasOther(): Promise<boolean> {
  const gpus = await import('@convoy/engine-cudnn').then(
    ({ cudnnGpus }) => cudnnGpus(),
    () => 0,
  )
  if (gpus > 0) return true
  return import('@convoy/engine-tfjs').then(
    async ({ webgpuGpuCount }) => (await webgpuGpuCount()) > 0,
    () => false,
  )
}

/** Does something while oneDNN is being fetched, and gives up fetching where that fails. */
export async function besideOnednn<T>(
  choice: { readonly engine: string; readonly gpu: boolean },
  display: Display,
  act: () => Promise<T>,
): Promise<T> {
  const abort = new AbortController()
  const [, result] = await Promise.all([
    bringOnednn(choice, display, abort.signal),
    act().catch((error: unknown) => {
      abort.abort()
      throw error
    }),
  ])
  return result
}
