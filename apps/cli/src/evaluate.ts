import { coordinatorSchema, openEvaluation, readRunConfig, type Evaluated } from '@convoy/coordinator'
import { withClasses, type Dataset } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import { buildModel } from '@convoy/model'
import { networkSpec, requireFinite, type Network } from '@convoy/weights'
import { createHash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import path from 'node:path'
import { loadData } from './dataset.ts'
import { Display, styleFor } from './display.ts'
import { grouped, percent } from './format.ts'
import { LocalWorkers, planWorkers } from './local.ts'
import { besideOnednn } from './onednn.ts'
import { collect, settle, type Given } from './options.ts'
import { classScores, confusionSvg, drawMistakes, scoreTable, worstMistakes } from './scores.ts'
import { EXIT, evaluateSchema } from './schemas.ts'
import { openCheckpoint, openWeights, type SourceOptions } from './source.ts'

interface Options extends SourceOptions {
  json?: boolean
  flip?: boolean
  svg?: string
  worst?: string
}

/** The most mistakes that `--worst` draws. */
const WORST = 40

/** What is evaluated: parameters, their network as far as it is known, and the settings of their run. */
interface Subject {
  readonly parameters: Float32Array
  readonly network: Network | undefined
  readonly kept: Record<string, unknown>
  /** For a person. */
  readonly name: string
  readonly step: number | null
}

async function subjectOf(options: Options, display: Display): Promise<Subject> {
  if (options.weights !== undefined) {
    const { network, matched } = await openWeights(options.weights, options)
    return { parameters: matched.parameters, network, kept: {}, name: options.weights, step: null }
  }
  const { checkpoint, directory } = await openCheckpoint(options, (text) => display.say(text))
  const { step, parameters } = checkpoint
  const network = networkSpec.safeParse(checkpoint.network).data
  const kept = await readRunConfig(directory)
  return { parameters, network, kept, name: `${path.basename(directory)}, step ${step}`, step }
}

/**
 * The data set with the classes of the weights, where these say which they are: an image is scored by what its class is called,
 * not by its number, which another set of folders changes. Throws E_WEIGHTS_FIT where the weights lack one of the classes.
 */
function byClassName(dataset: Dataset, { network, name }: Subject): Dataset {
  const classes = network?.classes
  if (!classes) return dataset
  const strange = dataset.classes.filter((label) => !classes.includes(label))
  if (strange.length === 0) return withClasses(dataset, classes)
  throw new ConvoyError(
    'E_WEIGHTS_FIT',
    `${name} cannot tell ${strange.join(', ')} of ${dataset.origin}; its classes are ${classes.join(', ')}`,
    'Call the folders of the classes as they were called in training, or fine-tune: `convoy train --data SOURCE --init FILE`.',
  )
}

/** A result as a program reads it. */
function evaluationEvent(
  { score, logits, flipped, imagesPerSecond }: Evaluated,
  classes: readonly string[],
  { step }: Subject,
  seconds: number,
) {
  const { count, loss, accuracy, confusion } = score
  const scores = classScores(confusion)
  return {
    event: 'evaluation',
    step,
    images: count,
    seconds,
    imagesPerSecond: Number.isFinite(imagesPerSecond) ? imagesPerSecond : null,
    loss,
    accuracy,
    classes,
    recall: scores.map(({ recall }) => recall),
    precision: scores.map(({ precision }) => precision),
    confusion,
    logitsSha256: createHash('sha256').update(new Uint8Array(logits.buffer)).digest('hex'),
    ...(flipped ? { flipped: { loss: flipped.loss, accuracy: flipped.accuracy } } : {}),
  }
}

/** A result as a person reads it. */
function evaluationText(
  { score, flipped, imagesPerSecond }: Evaluated,
  classes: readonly string[],
  seconds: number,
): string {
  const speed = Number.isFinite(imagesPerSecond) ? `, ${imagesPerSecond.toFixed(0)} images/s` : ''
  return [
    scoreTable(score, classes),
    `accuracy   ${percent(score.accuracy)} of ${grouped(score.count)} test images, loss ${score.loss.toFixed(4)} (${seconds.toFixed(1)} s${speed})`,
    ...(flipped
      ? [
          `flipped    ${percent(flipped.accuracy)}, loss ${flipped.loss.toFixed(4)}: the mean of each image and its mirror image`,
        ]
      : []),
  ].join('\n')
}

/** `convoy evaluate`: the test set, class by class. */
export async function evaluate(given: Given, options: Options): Promise<number> {
  const display = new Display(styleFor(options.json), process.stdout)
  const subject = await subjectOf(options, display)
  const trained = settle(coordinatorSchema, subject.kept)
  const values = { ...subject.kept, ...collect(evaluateSchema, given) }
  const config = settle(evaluateSchema, values)
  const loaded = await besideOnednn(config, display, () => loadData(values, display))
  const dataset = byClassName(loaded, subject)
  // A checkpoint of an older version does not say its network; the run's settings do.
  const model =
    subject.network?.model ??
    buildModel(trained.model, {
      input: dataset.shape,
      classes: dataset.classes.length,
      width: trained.width,
      inputDropout: trained.inputDropout,
      dropout: trained.dropout,
      head: trained.head,
    })
  requireFinite(subject.parameters, model, subject.name)
  const begun = performance.now()
  const evaluation = await openEvaluation(
    model,
    subject.parameters,
    dataset,
    trained,
    (event) => {
      if (event.event === 'evaluating' || event.event === 'refused') display.show(event)
    },
    subject.network?.preprocessing,
  )
  let failure: ConvoyError | undefined
  let interrupted = false
  const workers = new LocalWorkers(evaluation.url, config, undefined, (error) => {
    failure ??= error
    evaluation.stop()
  })
  const interrupt = () => {
    interrupted = true
    evaluation.stop()
  }
  process.on('SIGINT', interrupt)
  const plan = await planWorkers(config)
  if (plan.note !== undefined) display.say(`workers    ${plan.note}`)
  workers.start(plan)
  try {
    const result = await evaluation.run(options.flip)
    if (failure) throw failure
    if (!result || interrupted) return EXIT.interrupted
    const seconds = (performance.now() - begun) / 1000
    if (options.svg !== undefined) await writeFile(options.svg, confusionSvg(result.score, dataset.classes))
    if (options.worst !== undefined) {
      const worst = worstMistakes(model, dataset.test.labels, result.logits, WORST)
      await drawMistakes(options.worst, worst, dataset)
    }
    if (options.json)
      process.stdout.write(`${JSON.stringify(evaluationEvent(result, dataset.classes, subject, seconds))}\n`)
    else {
      display.say(`weights    ${subject.name}`)
      display.say(evaluationText(result, dataset.classes, seconds))
      for (const file of [options.svg, options.worst])
        if (file !== undefined) display.say(`written    ${file}`)
    }
    return EXIT.done
  } finally {
    process.off('SIGINT', interrupt)
    workers.expectEnd()
    await evaluation.close()
    await workers.close()
  }
}
