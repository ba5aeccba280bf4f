import type { AugmentationSpec, Dataset, PreprocessingSpec } from '@convoy/data'
import { ConvoyError } from '@convoy/errors'
import type { ModelSpec } from '@convoy/model'
import type { CoordinatorConfig } from '../config.ts'
import type { Report } from '../events.ts'
import { numericsOptions, numericsText, type NumericsClass } from '../numerics.ts'
import type { Hello, Welcome } from '../server/index.ts'
import { optimizerSpecOf, roundingOf, roundsOf } from '../training/index.ts'

/** What workers are told of a run. */
export interface Subject {
  readonly run: string
  readonly model: ModelSpec
  readonly preprocessing: PreprocessingSpec
  readonly dataset: Dataset
  /** Sizes that images are made smaller to in parts of the run, and samples of a leaf then. */
  readonly smaller: Welcome['smaller']
}

/**
 * Decides which workers may join a run, by their numerics class: the run's is the first worker's. Workers of another are let
 * in unless it is to be reproducible, and the result says so.
 */
export class Admission {
  /** The run's numerics class as text; null before the first worker. */
  numerics: string | null
  /** It as the first worker of this session told it. */
  numericsClass: NumericsClass | null = null
  /** Whether workers of other classes took part. */
  mixed: boolean
  readonly #config: CoordinatorConfig
  readonly subject: Subject
  readonly #report: Report

  /** @param before What a checkpoint says of the sessions before. */
  constructor(
    config: CoordinatorConfig,
    subject: Subject,
    report: Report,
    before: { readonly numerics: string | null; readonly mixed: boolean } = { numerics: null, mixed: false },
  ) {
    this.#config = config
    this.subject = subject
    this.#report = report
    this.numerics = before.numerics
    this.mixed = before.mixed
  }

  /** What a worker is told that may join. Throws E_NUMERICS. */
  admit(hello: Hello): Welcome {
    this.#compare(hello)
    const { flip, alternatingFlip, shift, cutout, resize, seed, microBatch, down = 'float32' } = this.#config
    const { run, model, preprocessing, dataset, smaller } = this.subject
    const { fingerprint } = dataset
    const { verify } = this.#config
    const rounding = roundingOf(this.#config)
    const rounds = roundsOf(this.#config)
    const augmentation: AugmentationSpec = {
      flip: alternatingFlip ? 'alternating' : flip,
      shift,
      ...(cutout === undefined ? {} : { cutout }),
      ...(resize === undefined ? {} : { resize }),
    }
    return {
      ...{ run, model, preprocessing, augmentation, seed, microBatch, smaller, fingerprint, down },
      samples: hello.fingerprint !== fingerprint,
      ...(hello.relay ? { relay: { verify, ...(rounding ? { rounding } : {}) } } : {}),
      ...(rounds
        ? {
            rounds: {
              steps: rounds.steps,
              batchSize: rounds.batchSize,
              optimizer: optimizerSpecOf(this.#config),
            },
          }
        : {}),
    }
  }

  #compare({ name, numerics }: Hello): void {
    const first = this.numerics
    const other = numericsText(numerics)
    if (first !== null && other !== first) {
      if (this.#config.reproducible) {
        throw new ConvoyError(
          'E_NUMERICS',
          `this run computes with ${first}; this worker with ${other}`,
          `Compute with ${numericsOptions(first)} on the same kind of processor, or start the coordinator without --reproducible.`,
        )
      }
      if (!this.mixed) this.#report({ event: 'mixed', worker: name, first, other })
      this.mixed = true
    }
    this.numerics ??= other
    this.numericsClass ??= numerics
  }
}
