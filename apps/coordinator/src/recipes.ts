import type { CoordinatorConfig } from './config.ts'

/** What a recipe comes to on all of CIFAR-10 (demo: on synthetic images). */
export interface Expected {
  /** Epochs of full-size images: an image of r×r costs (r/32)². */
  readonly work: number
  /** Share of the test images, each as it is; left out while no whole run was measured. */
  readonly accuracy?: number
  /** Of two cores with bf16 (AMD EPYC Zen 5, oneDNN), without what is not training; left out while it was not measured. */
  readonly minutes?: number
}

/** Options that belong together; docs/guides/recipes.md has a source for each. */
export interface Recipe {
  readonly description: string
  readonly options: Partial<CoordinatorConfig>
  readonly expected: Expected
}

const fast = {
  epochs: 6,
  batchSize: 128,
  initialisation: 'heNormal',
  identityStart: true,
  whitenedStart: true,
  optimizer: 'muon',
  schedule: 'oneCycle',
  learningRate: 0.03,
  warmup: 0,
  headRate: 0.4,
  labelSmoothing: 0.1,
  dropout: 0,
  alternatingFlip: true,
  shift: 2,
  sizes: '16:0.4,24:0.3,32',
} as const

/** A flag, variable or config-file key still wins over these. */
export const recipes = {
  keras: {
    description: 'the Keras listing: rate 0.01, momentum 0.9, decay 1e-6, dropout 0.5',
    options: {},
    expected: { work: 350 },
  },
  fast: {
    description: "past the paper's 90.92 % in little time: Muon, whitened start, small images first",
    options: fast,
    expected: { work: 3.41, accuracy: 0.9153, minutes: 8 },
  },
  best: {
    description: "past the paper's 92.75 % with augmentation: fast, for longer",
    options: { ...fast, epochs: 14, biasRate: 0.3 },
    expected: { work: 7.96, accuracy: 0.9291, minutes: 19 },
  },
  paper: {
    description:
      "the paper's: rate 0.01 cut by 10 at epochs 200, 250 and 300, input dropout 0.2, L2 0.001, ZCA",
    options: { schedule: 'steps', inputDropout: 0.2, weightDecay: 1e-3, preprocessing: 'zca' },
    expected: { work: 350 },
  },
  demo: {
    description: 'fast for 2 epochs of 4,000 images; what a first run on synthetic data uses',
    options: { ...fast, epochs: 2, limitTrain: 4_000, limitTest: 1_000 },
    expected: { work: 1.13, accuracy: 1 },
  },
} as const satisfies Record<string, Recipe>

export type RecipeName = keyof typeof recipes
