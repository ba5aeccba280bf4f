import { verdictText } from '@convoy/convergence'
import type { LiveNote } from '@convoy/protocol'
import { FOR_WORKERS, LEFT, type RunEvent } from '../../events.ts'

const percent = (share: number) => `${(100 * share).toFixed(2)} %`

/** An event in words for the page's list; undefined for those that its curves and figures show. */
export function noteOf(event: RunEvent): Pick<LiveNote, 'kind' | 'text'> | undefined {
  switch (event.event) {
    case 'start':
      return {
        kind: 'run',
        text: event.resumedAt > 0 ? `The run goes on after step ${event.resumedAt}.` : 'The run starts.',
      }
    case 'waiting':
      return { kind: event.reason === FOR_WORKERS ? 'run' : 'fault', text: `Waiting: ${event.reason}.` }
    case 'workerJoined':
      return { kind: 'worker', text: `${event.worker} joined: ${event.engine}.` }
    case 'workerLeft':
      return event.reason === LEFT
        ? { kind: 'worker', text: `${event.worker} left.` }
        : { kind: 'fault', text: `${event.worker} is lost: ${event.reason}.` }
    case 'workerStalled':
      return {
        kind: 'fault',
        text: event.compiling
          ? `${event.worker} stalled: it has compiled the model for ${event.waited.toFixed(0)} s.`
          : `${event.worker} stalled: no answer for ${event.waited.toFixed(1)} s; others have its work.`,
      }
    case 'workerRecovered':
      return { kind: 'worker', text: `${event.worker} answers again.` }
    case 'refused':
      return {
        kind: 'fault',
        text: `An answer of ${event.worker} was refused: ${event.code}: ${event.message}`,
      }
    case 'setAside':
      return { kind: 'fault', text: `${event.worker} is set aside for ${event.seconds} s: ${event.code}.` }
    case 'muted':
      return { kind: 'fault', text: `${event.count} more events of kind ${event.of} are not shown.` }
    case 'dishonest':
      return {
        kind: 'fault',
        text: `${event.worker} gave a wrong gradient in step ${event.step} and is out of this run.`,
      }
    case 'disputed':
      return {
        kind: 'fault',
        text: `${event.workers.join(' and ')} give different gradients in step ${event.step}; another worker decides.`,
      }
    case 'diverged':
      return { kind: 'fault', text: `The training diverged: ${event.message}.` }
    case 'rolledBack':
      return {
        kind: 'fault',
        text: `Back from step ${event.from} to ${event.to}, rate ×${event.rateFactor}: ${event.reason}.`,
      }
    case 'mixed':
      return {
        kind: 'fault',
        text: `Mixed numerics: ${event.worker} computes with ${event.other}, the run began with ${event.first}.`,
      }
    case 'epoch':
      return {
        kind: 'run',
        text: `Epoch ${event.epoch} ended: cost ${event.trainLoss?.toFixed(4) ?? 'not finite'}, train accuracy ${percent(event.trainAccuracy)}.`,
      }
    case 'test':
      return { kind: 'test', text: `Test accuracy ${percent(event.testAccuracy)}.` }
    case 'checkpoint':
      return { kind: 'checkpoint', text: `Checkpoint of step ${event.step}.` }
    case 'checkpointFailed':
      return { kind: 'fault', text: `A checkpoint was not written: ${event.message}` }
    case 'checkpointPassedOver':
      return { kind: 'fault', text: `A bad checkpoint was passed over: ${event.message}` }
    case 'logFailed':
      return { kind: 'fault', text: `${event.file} was not written: ${event.message}` }
    case 'verdict':
      return { kind: 'verdict', text: `Now ${verdictText(event.verdict)}. ${event.reason}` }
    case 'done':
      return {
        kind: 'run',
        text: event.finished ? 'The run is finished.' : `The run was stopped at step ${event.step}.`,
      }
    default:
      return undefined
  }
}
