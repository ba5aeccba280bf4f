import { verdictText } from '@convoy/convergence'
import type { RunEvent } from '@convoy/coordinator'
import { duration, grouped, percent } from './format.ts'

/** Events that are told in words; the others are only progress. */
export type ToldEvent = Exclude<RunEvent, { event: 'preparing' | 'step' | 'evaluating' }>
type Texts = {
  readonly [E in ToldEvent['event']]: (
    event: Extract<RunEvent, { event: E }>,
    epochs: number | undefined,
  ) => string
}

const texts: Texts = {
  start: (event) =>
    [
      `data       ${event.origin}`,
      `           ${grouped(event.trainImages)} training and ${grouped(event.testImages)} test images`,
      `model      ${event.model}, ${grouped(event.parameters)} parameters`,
      `run        ${event.run}, seed ${event.seed}, ${grouped(event.epochs)} epochs of ${grouped(event.stepsPerEpoch)} steps, batch ${grouped(event.batchSize)}`,
      ...(event.resumedAt > 0 ? [`           goes on after step ${grouped(event.resumedAt)}`] : []),
    ].join('\n'),
  initialised: (event) =>
    [
      `weights    ${event.file}, ${event.format}`,
      ...event.layers.map(
        ({ layer, shape, from }) =>
          `             ${layer.padEnd(8)} ${shape.join('×').padEnd(14)} ← ${from ?? 'new, drawn from the seed'}`,
      ),
    ].join('\n'),
  frozen: (event) =>
    `frozen     ${event.layers.join(', ')}: ${grouped(event.trained)} of ${grouped(event.of)} parameters are trained`,
  listening: (event) => [`dashboard  ${event.dashboard}`, `listening  ${event.url}`].join('\n'),
  waiting: (event) => `waiting    ${event.reason}`,
  workerJoined: (event) => `joined     ${event.worker} (${event.workers} now): ${event.engine}`,
  workerLeft: (event) => `left       ${event.worker} (${event.workers} now): ${event.reason}`,
  workerStalled: (event) =>
    event.compiling
      ? `stalled    ${event.worker}: it has compiled the model for ${event.waited.toFixed(0)} s`
      : `stalled    ${event.worker}: no answer for ${event.waited.toFixed(1)} s in step ${event.step}; others have its work`,
  workerRecovered: (event) => `recovered  ${event.worker}`,
  refused: (event) => `refused    ${event.worker}: ${event.code}: ${event.message}`,
  setAside: (event) => `set aside  ${event.worker} for ${event.seconds} s: ${event.code}`,
  muted: (event) => `…          ${grouped(event.count)} more lines of kind ${event.of} are not shown`,
  dishonest: (event) =>
    `DISHONEST  ${event.worker} gave a wrong gradient for [${event.lo}, ${event.hi}) of step ${event.step}; it is out of this run`,
  disputed: (event) =>
    `disputed   ${event.workers.join(' and ')} give different gradients for [${event.lo}, ${event.hi}) of step ${event.step}; another worker is needed to tell who is right`,
  diverged: (event) => `DIVERGED   at step ${event.step}: ${event.message}`,
  rolledBack: (event) =>
    `back       from step ${event.from} to ${event.to}, rate ×${event.rateFactor}: ${event.reason}`,
  mixed: (event) =>
    `mixed      ${event.worker} computes with ${event.other}; the run began with ${event.first}. The result depends on who computes what.`,
  verdict: (event) => `verdict    ${verdictText(event.verdict)}: ${event.reason}`,
  epoch: (event, epochs) =>
    `epoch ${event.epoch}/${epochs ?? '?'}  train loss ${event.trainLoss.toFixed(4)}  train accuracy ${percent(event.trainAccuracy)}  ${duration(event.seconds)}`,
  test: (event) =>
    `           test loss ${event.testLoss.toFixed(4)}  test accuracy ${percent(event.testAccuracy)}`,
  checkpoint: (event) => `checkpoint of step ${event.step}`,
  checkpointFailed: (event) =>
    `CHECKPOINT NOT WRITTEN at step ${event.step}: ${event.message}. Training goes on; the last good one stays.`,
  checkpointPassedOver: (event) => `passed over a bad checkpoint: ${event.message}`,
  logFailed: (event) =>
    `NOT WRITTEN ${event.file}: ${event.message}. Training goes on; the lines are kept for when it can be written.`,
  done: (event) =>
    [
      `${event.finished ? 'done' : 'stopped'}       step ${grouped(event.step)}, epoch ${event.epoch}, ${duration(event.seconds)} of training, ${event.imagesPerSecond.toFixed(1)} images/s`,
      ...(event.testAccuracy === null ? [] : [`           test accuracy ${percent(event.testAccuracy)}`]),
      ...(event.until
        ? [
            `           ${percent(event.until.accuracy)} ${event.until.reached ? 'reached' : 'not reached'} after ${grouped(event.until.epochs)} epochs, ${grouped(event.until.samples)} samples, ${duration(event.until.seconds)}`,
          ]
        : []),
      `           parameters sha256 ${event.parametersSha256}${event.mixed ? ' (mixed numerics)' : ''}`,
    ].join('\n'),
}

/**
 * An event in words, one line or several.
 *
 * @param epochs Of the run, where its start was seen.
 */
export function eventText(event: ToldEvent, epochs: number | undefined): string {
  return (texts[event.event] as (event: ToldEvent, epochs: number | undefined) => string)(event, epochs)
}
