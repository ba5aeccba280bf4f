import { verdictText } from '@convoy/convergence'
import type { LiveNote } from '@convoy/protocol'
import { FOR_WORKERS, LEFT, type RunEvent } from '../../events.ts'

const percent = (share: number) => `${(100 * share).toFixed(2)} %`

type Words = Pick<LiveNote, 'kind' | 'text'>

/** Events in words; not those that the page's curves and figures show. */
const words: { readonly [E in RunEvent['event']]?: (event: Extract<RunEvent, { event: E }>) => Words } = {
  start: (event) => ({
    kind: 'run',
    text: event.resumedAt > 0 ? `The run goes on after step ${event.resumedAt}.` : 'The run starts.',
  }),
  waiting: (event) => ({
    kind: event.reason === FOR_WORKERS ? 'run' : 'fault',
    text: `Waiting: ${event.reason}.`,
  }),
  workerJoined: (event) => ({ kind: 'worker', text: `${event.worker} joined: ${event.engine}.` }),
  workerLeft: (event) =>
    event.reason === LEFT
      ? { kind: 'worker', text: `${event.worker} left.` }
      : { kind: 'fault', text: `${event.worker} is lost: ${event.reason}.` },
  workerStalled: (event) => ({
    kind: 'fault',
    text: event.compiling
      ? `${event.worker} stalled: it has compiled the model for ${event.waited.toFixed(0)} s.`
      : `${event.worker} stalled: no answer for ${event.waited.toFixed(1)} s; others have its work.`,
  }),
  workerRecovered: (event) => ({ kind: 'worker', text: `${event.worker} answers again.` }),
  refused: (event) => ({
    kind: 'fault',
    text: `An answer of ${event.worker} was refused: ${event.code}: ${event.message}`,
  }),
  setAside: (event) => ({
    kind: 'fault',
    text: `${event.worker} is set aside for ${event.seconds} s: ${event.code}.`,
  }),
  muted: (event) => ({
    kind: 'fault',
    text: `${event.count} more events of kind ${event.of} are not shown.`,
  }),
  dishonest: (event) => ({
    kind: 'fault',
    text: `${event.worker} gave a wrong gradient in step ${event.step} and is out of this run.`,
  }),
  disputed: (event) => ({
    kind: 'fault',
    text: `${event.workers.join(' and ')} give different gradients in step ${event.step}; another worker decides.`,
  }),
  diverged: (event) => ({ kind: 'fault', text: `The training diverged: ${event.message}.` }),
  rolledBack: (event) => ({
    kind: 'fault',
    text: `Back from step ${event.from} to ${event.to}, rate ×${event.rateFactor}: ${event.reason}.`,
  }),
  mixed: (event) => ({
    kind: 'fault',
    text: `Mixed numerics: ${event.worker} computes with ${event.other}, the run began with ${event.first}.`,
  }),
  epoch: (event) => ({
    kind: 'run',
    text: `Epoch ${event.epoch} ended: cost ${event.trainLoss?.toFixed(4) ?? 'not finite'}, train accuracy ${percent(event.trainAccuracy)}.`,
  }),
  test: (event) => ({ kind: 'test', text: `Test accuracy ${percent(event.testAccuracy)}.` }),
  checkpoint: (event) => ({ kind: 'checkpoint', text: `Checkpoint of step ${event.step}.` }),
  checkpointFailed: (event) => ({ kind: 'fault', text: `A checkpoint was not written: ${event.message}` }),
  checkpointPassedOver: (event) => ({
    kind: 'fault',
    text: `A bad checkpoint was passed over: ${event.message}`,
  }),
  logFailed: (event) => ({ kind: 'fault', text: `${event.file} was not written: ${event.message}` }),
  wireBound: (event) => ({
    kind: 'fault',
    text: `${percent(event.share)} of a step goes to the wire: --replicas ${event.replicas} --local-steps ${event.localSteps} would need it seldom.`,
  }),
  verdict: (event) => ({ kind: 'verdict', text: `Now ${verdictText(event.verdict)}. ${event.reason}` }),
  done: (event) => ({
    kind: 'run',
    text: event.finished ? 'The run is finished.' : `The run was stopped at step ${event.step}.`,
  }),
}

/** An event in words for the page's list; undefined for those that its curves and figures show. */
export function noteOf(event: RunEvent): Words | undefined {
  // A file of metrics may say anything.
  if (!Object.hasOwn(words, event.event)) return undefined
  const say = words[event.event] as (event: RunEvent) => Words
  return say(event)
}
