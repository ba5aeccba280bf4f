import type { Logger } from 'pino'
import { collect, settle, type Given } from './options.ts'
import { logSchema } from './schemas.ts'

/** Where a program writes to, and what tells Kubernetes from a person there. */
interface Surroundings {
  readonly out: NodeJS.WritableStream & { isTTY?: boolean }
  readonly environment: NodeJS.ProcessEnv
}

/**
 * The log of a command where it is to be JSON lines, or undefined where it is words: by `--log`, or else JSON in a pod
 * of Kubernetes without a terminal. Each line has `level`, `time` (ISO 8601), the fields of its event, and `msg`.
 *
 * Throws E_USAGE where `--log` is neither.
 */
export async function openLog(
  given: Given,
  { out, environment }: Surroundings = { out: process.stdout, environment: process.env },
): Promise<Logger | undefined> {
  const { log } = settle(logSchema, collect(logSchema, given))
  const inPod = !out.isTTY && environment['KUBERNETES_SERVICE_HOST'] !== undefined
  if (log === undefined ? !inPod : log === 'pretty') return undefined
  const { pino } = await import('pino')
  return pino(
    {
      // The pod is named by whoever collects its log.
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    out,
  )
}
