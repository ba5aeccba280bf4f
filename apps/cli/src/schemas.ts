import { coordinatorSchema, dataSchema, serverSchema, trainingSchema } from '@convoy/coordinator/config'
import { connectionSchema, engineSchema, workerSchema } from '@convoy/worker/config'
import { z } from 'zod'

/** Exit codes: done, failed, wrong usage, interrupted. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

const localSchema = z.object({
  workers: z.int().min(0).max(1024).optional().meta({
    description:
      'worker processes on this machine (default: one a GPU, else one a core, as far as quota and memory allow)',
    unit: 'N',
  }),
})
/** How a program that trains or computes tells what happens. */
export const logSchema = z.object({
  log: z.enum(['pretty', 'json']).optional().meta({
    description:
      'the log as words or as JSON lines with level and time (default: json in a pod of Kubernetes, else pretty)',
    unit: 'FORMAT',
  }),
})
/** A local cluster has the options of its coordinator and of its workers' engines. */
export const trainSchema = z.object({
  ...localSchema.shape,
  ...engineSchema.shape,
  ...coordinatorSchema.shape,
  // Only where the engines are those of this machine can their speed be measured.
  microBatch: z
    .union([trainingSchema.shape.microBatch.unwrap(), z.literal('auto')])
    .default(16)
    .meta({
      description:
        'samples a leaf, the smallest piece of work; auto measures which suits the engine, as a new run on GPUs does by itself',
      unit: 'N|auto',
    }),
})
export const evaluateSchema = z.object({ ...localSchema.shape, ...engineSchema.shape, ...dataSchema.shape })
const { coordinator, ...connection } = connectionSchema.shape
/** A relay has the options of a worker's connection, and of a coordinator's door. */
export const relaySchema = z.object({
  ...connection,
  ...serverSchema.shape,
  upstream: coordinator
    .unwrap()
    .meta({ description: 'address of the coordinator above: ws://… or wss://…', unit: 'URL' }),
  port: serverSchema.shape.port.unwrap().default(7312).meta({ description: 'port for workers', unit: 'N' }),
  data: workerSchema.shape.data,
  token: connection.token.meta({
    description: 'what the coordinator above asks for, and what this relay asks workers for',
    unit: 'TEXT',
  }),
})

/**
 * What options are for: every key of every schema is in one group, for help, docs and whoever else shows them. Most used
 * first, groups and keys alike; the first `often` keys are explained by a plain `--help`.
 */
export const optionGroups = {
  recipe: {
    title: 'how long, in which steps, and when to stop',
    often: 4,
    keys: [
      ...['epochs', 'batchSize', 'until', 'seed', 'steps', 'evaluateEvery', 'sizes', 'resize', 'microBatch'],
      ...['onDivergence', 'deadAfter'],
    ],
  },
  data: {
    title: 'which images, and what is made of them',
    often: 3,
    keys: [
      ...['data', 'limitTrain', 'flip', 'shift', 'cutout', 'alternatingFlip', 'preprocessing', 'imageSize'],
      ...['limitTest', 'holdOut', 'skipUnreadable'],
    ],
  },
  network: {
    title: 'layers, and what they start from',
    often: 3,
    keys: [
      ...['model', 'width', 'init', 'freeze', 'dropout', 'inputDropout', 'head', 'initialisation'],
      ...['identityStart', 'whitenedStart'],
    ],
  },
  optimizer: {
    title: 'how the parameters follow the gradient',
    often: 3,
    keys: [
      ...['learningRate', 'schedule', 'optimizer', 'momentum', 'nesterov', 'weightDecay', 'labelSmoothing'],
      ...['clipNorm', 'warmup', 'endRate', 'milestones', 'decay', 'c1', 'c2', 'biasRate', 'headRate'],
      'parametrisation',
    ],
  },
  cluster: {
    title: 'workers, and what they compute with',
    often: 3,
    keys: [
      ...['workers', 'engine', 'precision', 'gpu', 'device', 'threads', 'reproducible', 'verify', 'wire'],
      ...['wireLeaves', 'down', 'worth', 'workerName', 'grace', 'giveUpAfter', 'stay', 'dismiss'],
    ],
  },
  rounds: {
    title: 'several steps between two updates, for thin links',
    often: 0,
    keys: ['replicas', 'localSteps', 'outerRate', 'outerMomentum'],
  },
  files: {
    title: 'what is kept, and where',
    often: 2,
    keys: [
      ...['name', 'runs', 'checkpointEvery', 'keepCheckpoints', 'tensorboard', 'ledger', 'log', 'cache'],
      'healthFile',
    ],
  },
  address: {
    title: 'where the coordinator listens, and who may come',
    often: 2,
    keys: ['port', 'host', 'coordinator', 'upstream', 'token', 'tlsCert', 'tlsKey', 'tlsCa'],
  },
} as const satisfies Record<string, { title: string; often: number; keys: readonly string[] }>

export type OptionGroup = keyof typeof optionGroups
