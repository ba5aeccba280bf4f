import { modelNames } from '@convoy/model'
import { tokenSchema } from '@convoy/protocol/token'
import { z } from 'zod'

/**
 * Every option of the coordinator, once: the command line makes a flag, an environment variable and a config-file key of
 * each, with the sentence and the unit given here.
 */

const positive = z.number().positive()
const notAccuracy = 'it is neither a share such as 0.85 nor a percentage such as 85%'
const whole = z.int().min(0).max(Number.MAX_SAFE_INTEGER)

/** What decides the result, bit for bit, together with the data set and the numerics class. */
export const trainingSchema = z.object({
  model: z
    .enum(modelNames as [string, ...string[]])
    .default('all-cnn-c')
    .meta({ description: 'network', unit: 'NAME' }),
  width: z
    .number()
    .min(0.03)
    .max(4)
    .default(1)
    .meta({ description: "filters of every layer, as a multiple of the paper's", unit: 'FACTOR' }),
  inputDropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0)
    .meta({ description: 'dropout rate on the input (0.2 in the paper)', unit: 'RATE' }),
  dropout: z
    .number()
    .min(0)
    .lt(1)
    .default(0.5)
    .meta({ description: 'dropout rate after each down-sampling layer', unit: 'RATE' }),
  head: z
    .enum(['softmax', 'sigmoid'])
    .default('softmax')
    .meta({ description: 'cross-entropy on a softmax, or on one sigmoid a class', unit: 'NAME' }),
  initialisation: z
    .enum(['heUniform', 'heNormal', 'glorotUniform', 'zeros'])
    .default('heUniform')
    .meta({ description: 'how the kernels start', unit: 'NAME' }),
  identityStart: z.boolean().optional().meta({
    description:
      'have the first filters of the layers between first and last copy a channel each at the start',
  }),
  whitenedStart: z.boolean().optional().meta({
    description: "start the first layer with the eigenvectors of the training images' patches",
  }),
  init: z.string().optional().meta({
    description:
      'start from the weights in a file: a checkpoint (.convoy), Keras (.h5), TensorFlow.js (model.json), PyTorch (.pt) or .safetensors; with other classes the last layer is new',
    unit: 'FILE',
  }),
  freeze: z.string().optional().meta({
    description: 'layers that stay as they are: all-but-N (the last N train), or names such as conv1,conv2',
    unit: 'LAYERS',
  }),
  seed: whole.default(1).meta({ description: 'seed of every random number of the run', unit: 'N' }),
  epochs: z
    .int()
    .min(1)
    .max(1_000_000)
    .default(350)
    .meta({ description: 'passes over the training set', unit: 'N' }),
  batchSize: z
    .union([z.int().min(1).max(1_000_000), z.literal('full')])
    .default(128)
    .meta({
      description: 'samples an update: 1 (stochastic), N (mini-batch) or full (batch)',
      unit: 'N|full',
    }),
  microBatch: z
    .int()
    .min(1)
    .max(4096)
    .default(16)
    .meta({ description: 'samples a leaf, the smallest piece of work', unit: 'N' }),
  replicas: z.int().min(1).max(1024).optional().meta({
    description:
      'train in rounds: so many replicas take --local-steps each by themselves, then the mean of their differences is one update; few bytes, for slow links',
    unit: 'K',
  }),
  localSteps: z.int().min(1).max(10_000).optional().meta({
    description: 'with --replicas: steps of --batch-size samples that each takes in a round (default: 1)',
    unit: 'H',
  }),
  outerRate: positive.optional().meta({
    description:
      "with --replicas: rate of a round's update (default: 0.7; 1 with --outer-momentum 0 averages)",
    unit: 'RATE',
  }),
  outerMomentum: z
    .number()
    .min(0)
    .lt(1)
    .optional()
    .meta({ description: "with --replicas: Nesterov momentum of rounds' updates (default: 0.9)", unit: 'X' }),
  schedule: z.enum(['constant', 'decay', 'inverse', 'steps', 'oneCycle']).default('decay').meta({
    description:
      'learning rate over time: constant; decay, η/(1 + decay·t) as in Keras; inverse, c1/(t + c2); steps, ×0.1 at milestones; oneCycle',
    unit: 'NAME',
  }),
  learningRate: positive.default(0.01).meta({ description: 'η, the rate or its peak', unit: 'RATE' }),
  decay: z.number().min(0).default(1e-6).meta({ description: "Keras's decay, per update", unit: 'RATE' }),
  c1: positive.default(100).meta({ description: 'c1 of c1/(t + c2)', unit: 'X' }),
  c2: positive.default(10_000).meta({ description: 'c2 of c1/(t + c2)', unit: 'UPDATES' }),
  milestones: z
    .array(positive)
    .default([200, 250, 300])
    .meta({ description: 'epochs after which `steps` multiplies the rate by 0.1', unit: 'E,E,…' }),
  warmup: z
    .number()
    .min(0)
    .max(1)
    .default(0.15)
    .meta({ description: 'share of the run in which oneCycle rises', unit: 'SHARE' }),
  endRate: z.number().min(0).max(1).optional().meta({
    description: 'share of its peak that the rate of oneCycle ends with (default: 0)',
    unit: 'SHARE',
  }),
  optimizer: z.enum(['sgd', 'muon']).optional().meta({
    description:
      'how the parameters follow the gradient: sgd (the default), with momentum; muon, momentum made orthogonal layer by layer',
    unit: 'NAME',
  }),
  momentum: z.number().min(0).lt(1).default(0.9).meta({ description: 'μ', unit: 'X' }),
  nesterov: z.boolean().default(true).meta({ description: "Nesterov's form of momentum" }),
  weightDecay: z
    .number()
    .min(0)
    .default(0)
    .meta({ description: 'L2: adds this times the kernels to their gradient', unit: 'X' }),
  biasRate: z.number().min(0).optional().meta({
    description: 'what the rate is multiplied by for biases (default: 1)',
    unit: 'FACTOR',
  }),
  headRate: z.number().min(0).optional().meta({
    description: "what muon's rate is multiplied by for the last layer (default: 1)",
    unit: 'FACTOR',
  }),
  parametrisation: z.enum(['plain', 'standardised']).optional().meta({
    description:
      'what sgd moves: the kernels (plain, the default), or variables of which each filter is made with mean 0 and a length of its own',
    unit: 'NAME',
  }),
  labelSmoothing: z.number().min(0).lt(1, 'at 1 nothing is left of the labels').optional().meta({
    description: 'share of each label that is spread over all classes (default: 0)',
    unit: 'SHARE',
  }),
  clipNorm: z
    .number()
    .min(0)
    .default(0)
    .meta({ description: 'largest global norm of a gradient; 0 is off', unit: 'NORM' }),
  preprocessing: z.enum(['channels', 'gcn', 'zca']).default('channels').meta({
    description: "normalise by channel; by image (global contrast); or that and ZCA, the paper's",
    unit: 'NAME',
  }),
  flip: z.boolean().default(false).meta({ description: 'mirror every other training image' }),
  alternatingFlip: z.boolean().optional().meta({
    description: 'mirror each training image in every other epoch, its first time by chance',
  }),
  shift: z
    .int()
    .min(0)
    .max(64)
    .default(0)
    .meta({ description: 'shift training images by up to this', unit: 'PIXELS' }),
  cutout: z.int().min(1).max(512).optional().meta({
    description: 'cut a square of this side out of each training image, at a place drawn by chance',
    unit: 'PIXELS',
  }),
  sizes: z.string().optional().meta({
    description:
      'train on smaller images first, as in 16:0.4,24:0.3,32: sizes and their shares of the run; an image costs as much as its area',
    unit: 'SIZE:SHARE,…,SIZE',
  }),
  resize: z.enum(['shrink', 'crop']).optional().meta({
    description: 'how --sizes makes images smaller: whole ones shrunk (the default), or a window of each',
    unit: 'NAME',
  }),
  wire: z.enum(['float32', 'bf16', 'int8']).default('float32').meta({
    description:
      'how gradients travel; bf16 halves the bytes, int8 takes a quarter (rounded by chance); at a fixed level',
    unit: 'NAME',
  }),
  wireLeaves: z
    .int()
    .min(1)
    .max(65_536)
    .refine((leaves) => Number.isInteger(Math.log2(leaves)), 'it is no power of two')
    .default(4)
    .meta({
      description:
        'leaves in a node that --wire rounds, a power of two; with --replicas it rounds what each gives',
      unit: 'N',
    }),
  down: z.enum(['float32', 'bf16']).optional().meta({
    description:
      'how parameters travel to workers (default: float32); bf16 halves the bytes: workers compute with rounded ones, updates are in float32',
    unit: 'NAME',
  }),
  onDivergence: z.enum(['stop', 'rollback']).default('stop').meta({
    description:
      'when the cost rises for good, never falls, or a parameter is not finite: stop, or go back to the last epoch at half the rate',
    unit: 'NAME',
  }),
  deadAfter: z.int().min(0).default(2_000).meta({
    description: 'updates after which a cost that never fell is a dead start; 0 is never',
    unit: 'UPDATES',
  }),
})

/** Which images. */
export const dataSchema = z.object({
  data: z.string().default('auto').meta({
    description:
      'auto, cifar10, synthetic, or a folder or archive (.tar, .tar.gz, .zip) of images or of .bin files of CIFAR-10 or CIFAR-100',
    unit: 'SOURCE',
  }),
  limitTrain: z.int().min(1).optional().meta({ description: 'use only so many training images', unit: 'N' }),
  holdOut: z.int().min(1).optional().meta({
    description:
      'keep so many training images aside as the test set, drawn class by class: to tune on, or where there is no test set',
    unit: 'N',
  }),
  skipUnreadable: z.boolean().optional().meta({
    description: 'leave out images that cannot be decoded, and list them, rather than refuse the data set',
  }),
  limitTest: z.int().min(1).optional().meta({ description: 'use only so many test images', unit: 'N' }),
  imageSize: z
    .int()
    .min(8)
    .max(512)
    .default(32)
    .meta({ description: 'height and width that images are resized to', unit: 'PIXELS' }),
  cache: z
    .string()
    .optional()
    .meta({ description: "where converted data sets are kept (default: the user's cache)", unit: 'DIR' }),
})

/** How the run is kept and watched; none of it changes the result. */
export const runSchema = z.object({
  name: z
    .string()
    .regex(/^[\w.-]{1,80}$/, 'letters, digits, dot, dash and underscore only')
    .optional()
    .meta({
      description: 'folder of the run; one that exists is continued (default: made from date and model)',
      unit: 'NAME',
    }),
  runs: z.string().default('runs').meta({ description: 'where runs are kept', unit: 'DIR' }),
  checkpointEvery: positive
    .default(60)
    .meta({ description: 'time between checkpoints; there is also one after each epoch', unit: 'SECONDS' }),
  keepCheckpoints: z.int().min(1).max(1000).default(3).meta({ description: 'checkpoints kept', unit: 'N' }),
  evaluateEvery: z
    .int()
    .min(0)
    .default(1)
    .meta({ description: 'test after so many epochs; 0 tests only at the end', unit: 'EPOCHS' }),
  steps: z.int().min(1).optional().meta({
    description: 'stop after so many updates (rounds, with --replicas), whatever the epoch',
    unit: 'N',
  }),
  until: z
    .union([
      z.number().gt(0, notAccuracy).max(1, notAccuracy),
      z.string().regex(/^(100|\d{1,2}(\.\d+)?) ?%$/, notAccuracy),
    ])
    .optional()
    .meta({
      description: 'stop at the first test with this accuracy, such as 0.85 or 85%; --epochs stays the limit',
      unit: 'ACCURACY',
    }),
  verify: z.number().min(0).max(1).default(0).meta({
    description: 'share of the work that a second worker repeats, to find workers whose gradients are wrong',
    unit: 'SHARE',
  }),
  ledger: z
    .boolean()
    .default(false)
    .meta({ description: 'write ledger.jsonl: which samples each update used, and who computed them' }),
  tensorboard: z.boolean().default(false).meta({
    description: 'write the curves as event files for TensorBoard, in the folder tensorboard of the run',
  }),
  reproducible: z
    .boolean()
    .default(false)
    .meta({ description: 'refuse workers whose arithmetic differs from the first one’s' }),
  worth: z.number().min(0.001).max(0.5).default(0.05).meta({
    description: 'share of a step that one more worker must save to be wanted by an autoscaler',
    unit: 'SHARE',
  }),
  stay: z.boolean().default(false).meta({
    description: 'go on answering when the run is over, until SIGTERM; what a supervisor that restarts needs',
  }),
  dismiss: z.boolean().default(false).meta({
    description:
      'with --stay: send workers home when the run is over, so that they end with 0, as those of a batch job should',
  }),
})

/** Where the coordinator listens. */
export const serverSchema = z.object({
  host: z
    .string()
    // As it stands in addresses.
    .overwrite((host) => host.replace(/^\[(.*)\]$/, '$1'))
    .default('127.0.0.1')
    .meta({ description: 'address to listen on', unit: 'ADDRESS' }),
  port: z.int().min(0).max(65_535).default(7311).meta({ description: 'port; 0 takes a free one', unit: 'N' }),
  token: tokenSchema
    .min(8, 'at least 8 characters')
    .optional()
    .meta({ description: 'what workers must show; required beyond loopback', unit: 'TEXT' }),
  tlsCert: z.string().optional().meta({ description: 'PEM certificate', unit: 'FILE' }),
  tlsKey: z.string().optional().meta({ description: 'PEM key of the certificate', unit: 'FILE' }),
})

export const coordinatorSchema = z.object({
  ...trainingSchema.shape,
  ...dataSchema.shape,
  ...runSchema.shape,
  ...serverSchema.shape,
})

export type TrainingConfig = z.infer<typeof trainingSchema>
export type DataConfig = z.infer<typeof dataSchema>
export type RunConfig = z.infer<typeof runSchema>
export type ServerConfig = z.infer<typeof serverSchema>
export type CoordinatorConfig = z.infer<typeof coordinatorSchema>

/** `--until` as a share of 1. */
export function shareOf(accuracy: number | string): number {
  return typeof accuracy === 'number' ? accuracy : parseFloat(accuracy) / 100
}
