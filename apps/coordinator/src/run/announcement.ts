import type { Dataset } from '@convoy/data'
import { parameterLayout, trainedLayout, type ModelSpec } from '@convoy/model'
import { arch, availableParallelism, cpus, hostname, release, totalmem, type } from 'node:os'
import manifest from '../../package.json' with { type: 'json' }
import type { CoordinatorConfig } from '../config.ts'
import type { Machine, Report } from '../events.ts'
import type { Training } from '../training/index.ts'
import type { Initial } from './initial.ts'

/** What is told of a run when it opens. */
export interface Opening {
  readonly name: string
  readonly config: CoordinatorConfig
  readonly model: ModelSpec
  readonly dataset: Dataset
  readonly initial: Initial
  readonly training: Training
  readonly url: string
}

/** Tells what kind of run has opened, from which weights, and where. */
export function announce(opening: Opening, report: Report): void {
  const { config, model, initial, url } = opening
  reportStart(opening, report)
  if (config.init !== undefined && initial.from) {
    const { format, sha256, table, notes } = initial.from
    const layers = table.map(({ layer, shape, from }) => ({ layer, shape, from: from?.layer ?? null }))
    report({ event: 'initialised', file: config.init, format, sha256, layers, notes })
  }
  const trained = trainedLayout(model).size
  const of = parameterLayout(model).size
  if (trained < of) {
    const layers = model.layers.flatMap((layer) =>
      layer.kind === 'conv2d' && layer.frozen ? [layer.name] : [],
    )
    report({ event: 'frozen', layers, trained, of })
  }
  report({ event: 'listening', url, dashboard: pageAddress(url) })
}

function reportStart({ name, config, model, dataset, training }: Opening, report: Report): void {
  const { stepsPerEpoch, rounds } = training.length
  const { steps } = config
  const { changes } = training.sizes
  report({
    event: 'start',
    run: name,
    model: model.name,
    parameters: parameterLayout(model).size,
    data: dataset.name,
    origin: dataset.origin,
    trainImages: dataset.train.count,
    testImages: dataset.test.count,
    epochs: config.epochs,
    stepsPerEpoch,
    work: training.sizes.work(steps),
    ...(changes ? { sizes: changes } : {}),
    ...(steps === undefined ? {} : { steps }),
    batchSize: rounds?.batchSize ?? training.length.batchSize,
    ...(rounds ? { rounds: { replicas: rounds.replicas, steps: rounds.steps } } : {}),
    seed: config.seed,
    resumedAt: training.progress.step,
    fingerprint: dataset.fingerprint,
    machine: machineHere(),
  })
}

function machineHere(): Machine {
  return {
    cpu: cpus().at(0)?.model.trim() ?? arch(),
    cores: availableParallelism(),
    memory: totalmem(),
    system: `${type()} ${release()} ${arch()}`,
    node: process.version,
    convoy: manifest.version,
  }
}

/** Where a browser finds the page of a coordinator at this address; one that listens everywhere is named by its host. */
function pageAddress(url: string): string {
  return `${url.replace(/^ws/, 'http').replace(/\/\/(0\.0\.0\.0|\[::\])/, `//${hostname()}`)}/`
}
