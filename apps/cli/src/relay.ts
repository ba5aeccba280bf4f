import { Relay } from '@convoy/coordinator'
import { loadDataset } from '@convoy/data'
import { keepHealthFile, Worker } from '@convoy/worker'
import type { Logger } from 'pino'
import type { z } from 'zod'
import { Display, styleFor } from './display.ts'
import { relaySchema } from './schemas.ts'
import { settle } from './options.ts'

/** `convoy relay`: a worker to a coordinator above, and a coordinator to the workers of a site. */
export async function relay(
  values: Record<string, unknown>,
  { json = false, logger }: { json?: boolean; logger?: Logger | undefined },
): Promise<number> {
  const config: z.infer<typeof relaySchema> = settle(relaySchema, values)
  const { upstream, healthFile, data } = config
  const display = new Display(styleFor(json), process.stdout, logger)
  const log = (text: string) => {
    if (json) process.stdout.write(`${JSON.stringify({ event: 'relay', text })}\n`)
    else display.say(text)
  }
  const dataset = data === undefined ? undefined : await loadDataset(data, {})
  const below = new Relay(config, display.show.bind(display), dataset)
  const above = new Worker({ ...config, coordinator: upstream }, () => below, log)
  const url = await below.listen()
  display.show({ event: 'listening', url })
  const endHealth = healthFile === undefined ? undefined : keepHealthFile(healthFile, () => above.joined)
  const stopped = new AbortController()
  const leave = () => {
    if (stopped.signal.aborted) process.exit(130)
    log('leaving; the work at hand goes to others')
    stopped.abort()
    void above.stop()
  }
  process.on('SIGTERM', leave)
  process.on('SIGINT', leave)
  try {
    log(
      `workers come first: ./convoy worker --coordinator ${url}; then the coordinator at ${upstream} is looked for`,
    )
    await below.worker(stopped.signal)
    if (!stopped.signal.aborted) await above.run()
    if (!stopped.signal.aborted) await below.close('the run is over')
  } finally {
    endHealth?.()
    await above.dispose()
  }
  if (stopped.signal.aborted) process.exit(0)
  return 0
}
