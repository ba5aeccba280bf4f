import { verdictText } from '@convoy/convergence'
import { numericsOptions, type RunEvent } from '@convoy/coordinator'
import { counted, duration, grouped, percent, work } from './format.ts'

type Of<E extends RunEvent['event']> = Extract<RunEvent, { event: E }>
/** Events that are told in words; the others are only progress. */
export type ToldEvent = Exclude<RunEvent, { event: 'preparing' | 'step' | 'evaluating' }>
type Texts = {
  readonly [E in ToldEvent['event']]: (event: Of<E>, start: Of<'start'> | undefined) => string
}

/** The sizes of a run's images, and where they begin. */
export const sizesText = (sizes: NonNullable<Of<'start'>['sizes']>) =>
  sizes.map(({ from, size }) => `${size} px${from > 0 ? ` after step ${grouped(from)}` : ''}`).join(', ')

/** What a step of a run is called. */
export const stepOf = (start: Of<'start'> | undefined) => (start?.rounds ? 'round' : 'step')

/** What a step of a run consists of. */
export const roundsText = ({ replicas, steps }: NonNullable<Of<'start'>['rounds']>) =>
  `${counted(replicas, 'replica')} × ${counted(steps, 'step')}`

/** What a run with `--until` came to. */
export function untilText(until: NonNullable<Of<'done'>['until']>): string {
  const { epochs } = until
  const accuracy = percent(until.accuracy)
  const reached = until.reached ? `reached ${accuracy}` : `${accuracy} not reached`
  // Where all images were of full size, the epochs say it.
  const cost = until.work < epochs ? `, the work of ${work(until.work)} full-size ones,` : ''
  return `${reached} after ${counted(epochs, 'epoch')}${cost} in ${duration(until.seconds)}`
}

const texts: Texts = {
  start: (event) =>
    [
      `data       ${event.origin}`,
      `           ${grouped(event.trainImages)} training and ${grouped(event.testImages)} test images`,
      `model      ${event.model}, ${grouped(event.parameters)} parameters`,
      `run        ${event.run}, seed ${event.seed}, ${counted(event.epochs, 'epoch')} of ${counted(event.stepsPerEpoch, stepOf(event))}, ${event.rounds ? `${roundsText(event.rounds)}, ` : ''}batch ${grouped(event.batchSize)}`,
      ...(event.resumedAt > 0
        ? [`           goes on after ${stepOf(event)} ${grouped(event.resumedAt)}`]
        : []),
      ...(event.sizes
        ? [
            `images     ${sizesText(event.sizes)}`,
            `           in all the work of ${work(event.work ?? event.epochs)} full-size epochs`,
          ]
        : []),
    ].join('\n'),
  slowEngine: (event) => `engine     ${event.reason}`,
  initialised: (event) =>
    [
      `weights    ${event.file}, ${event.format}`,
      ...event.layers.map(
        ({ layer, shape, from }) =>
          `             ${layer.padEnd(8)} ${shape.join('×').padEnd(14)} ← ${from ?? 'new, drawn from the seed'}`,
      ),
      ...event.notes.map((note) => `             ${note}`),
    ].join('\n'),
  frozen: (event) =>
    `frozen     ${event.layers.join(', ')}: ${grouped(event.trained)} of ${grouped(event.of)} parameters are trained`,
  listening: (event) =>
    [...(event.dashboard ? [`dashboard  ${event.dashboard}`] : []), `listening  ${event.url}`].join('\n'),
  waiting: (event) => `waiting    ${event.reason}`,
  workerJoined: (event) => `joined     ${event.worker} (${event.workers} now): ${event.engine}`,
  workerLeft: (event) => `left       ${event.worker} (${event.workers} now): ${event.reason}`,
  workerStalled: (event, start) =>
    event.compiling
      ? `stalled    ${event.worker}: it has compiled the model for ${event.waited.toFixed(0)} s`
      : `stalled    ${event.worker}: no answer for ${event.waited.toFixed(1)} s in ${stepOf(start)} ${event.step}; others have its work`,
  workerRecovered: (event) => `recovered  ${event.worker}`,
  refused: (event) => `refused    ${event.worker}: ${event.code}: ${event.message}`,
  setAside: (event) => `set aside  ${event.worker} for ${event.seconds} s: ${event.code}`,
  muted: (event) => `…          ${grouped(event.count)} more lines of kind ${event.of} are not shown`,
  dishonest: (event) =>
    `DISHONEST  ${event.worker} gave a wrong gradient for [${event.lo}, ${event.hi}) of step ${event.step}; ${event.warned ? 'it is a relay, and checks its workers from now on' : 'it is out of this run'}`,
  disputed: (event) =>
    `disputed   ${event.workers.join(' and ')} give different gradients for [${event.lo}, ${event.hi}) of step ${event.step}; another worker is needed to tell who is right`,
  diverged: (event) => `DIVERGED   at step ${event.step}: ${event.message}`,
  rolledBack: (event) =>
    `back       from step ${event.from} to ${event.to}, rate ×${event.rateFactor}: ${event.reason}`,
  mixed: (event) =>
    `mixed      ${event.worker} computes with ${event.other}; the run began with ${event.first}. The result depends on who computes what; with ${numericsOptions(event.first)} it goes on as it began.`,
  wireBound: (event) =>
    `wire       ${percent(event.share)} of a step goes to parameters and gradients on their way, not to computing. Rounds need them seldom: a new run with --replicas ${event.replicas} --local-steps ${event.localSteps}; --wire int8 --down bf16 makes them smaller. What that costs: docs/guides/rounds.md.`,
  verdict: (event) => `verdict    ${verdictText(event.verdict)}: ${event.reason}`,
  epoch: (event, start) =>
    `epoch ${event.epoch}/${start?.epochs ?? '?'}  train loss ${event.trainLoss.toFixed(4)}  train accuracy ${percent(event.trainAccuracy)}  ${duration(event.seconds)}`,
  test: (event) =>
    `           test loss ${event.testLoss.toFixed(4)}  test accuracy ${percent(event.testAccuracy)}`,
  checkpoint: (event) => `checkpoint of step ${event.step}`,
  checkpointFailed: (event) =>
    `CHECKPOINT NOT WRITTEN at step ${event.step}: ${event.message}. Training goes on; the last good one stays.`,
  checkpointPassedOver: (event) => `passed over a bad checkpoint: ${event.message}`,
  logFailed: (event) =>
    `NOT WRITTEN ${event.file}: ${event.message}. Training goes on; the lines are kept for when it can be written.`,
  done: (event, start) =>
    [
      `${event.finished ? 'done' : 'stopped'}       ${stepOf(start)} ${grouped(event.step)}, epoch ${event.epoch}${start?.sizes ? `, the work of ${work(event.work)} full-size epochs` : ''}, ${duration(event.seconds)} of training${event.imagesPerSecond > 0 ? `, ${event.imagesPerSecond.toFixed(1)} images/s` : ''}`,
      ...(event.testAccuracy === null ? [] : [`           test accuracy ${percent(event.testAccuracy)}`]),
      ...(event.until ? [`           ${untilText(event.until)}`] : []),
      `           parameters sha256 ${event.parametersSha256}${event.mixed ? ' (mixed numerics)' : ''}`,
    ].join('\n'),
}

/**
 * An event in words, one line or several.
 *
 * @param start Of the run, where it was seen.
 */
export function eventText(event: ToldEvent, start: Of<'start'> | undefined): string {
  return (texts[event.event] as (event: ToldEvent, start: Of<'start'> | undefined) => string)(event, start)
}
