import { ConvoyError } from '@convoy/errors'
import { ComputeThread, keepHealthFile, Worker, workerSchema } from '@convoy/worker'
import type { Logger } from 'pino'
import { Display, styleFor } from './display.ts'
import { bringOnednn } from './onednn.ts'
import { settle } from './options.ts'
import { EXIT } from './schemas.ts'

/** Set for workers that `convoy train` starts: the terminal's Ctrl-C is for their parent, whose end is theirs. */
export const MANAGED = 'CONVOY_MANAGED'

/** What one of these ended with, and whether it was ever let in, as its parent is told. */
export interface WorkerEnd extends Pick<ConvoyError, 'code' | 'message' | 'remedy'> {
  readonly wasJoined: boolean
}

/** `convoy worker`. */
export async function work(
  values: Record<string, unknown>,
  { json = false, logger }: { json?: boolean; logger?: Logger | undefined },
): Promise<number> {
  const config = settle(workerSchema, values)
  const { engine, precision, threads, device = 0, gpu } = config
  const managed = process.env[MANAGED] !== undefined
  const log = (text: string) => {
    if (managed) return
    if (logger) return logger.info({ event: 'worker' }, text)
    process.stdout.write(json ? `${JSON.stringify({ event: 'worker', text })}\n` : `${text}\n`)
  }
  // What `convoy train` starts finds what it has fetched.
  if (!managed) await bringOnednn({ engine, gpu }, new Display(styleFor(json), process.stdout, logger))
  log(`looking for the coordinator at ${config.coordinator}`)
  const { data } = config
  const setup = {
    engine: { engine, precision, threads, device, gpu },
    ...(data === undefined ? {} : { data }),
  }
  const open = () => new ComputeThread(setup, new URL('./compute.mjs', import.meta.url))
  const worker = new Worker(config, open, log)
  const endHealth =
    config.healthFile === undefined ? undefined : keepHealthFile(config.healthFile, () => worker.joined)
  let signals = 0
  const leave = () => {
    if (++signals > 1) process.exit(130)
    log('leaving; what is being computed is finished first')
    void worker.stop()
  }
  process.on('SIGTERM', leave)
  process.on('SIGINT', () => {
    if (!managed) leave()
  })
  const orphaned = () => process.exit(0)
  if (managed) process.on('disconnect', orphaned)
  try {
    await worker.run()
  } catch (error) {
    if (!managed || !process.send || !(error instanceof ConvoyError)) throw error
    // The parent shows it, once for all of its workers.
    const { code, message, remedy } = error
    process.send({ code, message, remedy, wasJoined: worker.wasJoined } satisfies WorkerEnd)
    return EXIT.failed
  } finally {
    endHealth?.()
    await worker.dispose()
    // The exit code is this program's own now, not that of one whose parent is gone.
    process.off('disconnect', orphaned)
    if (managed) process.disconnect?.()
  }
  // Looking up the name of a coordinator that is gone can take longer than a supervisor waits.
  if (signals > 0) process.exit(0)
  return 0
}
