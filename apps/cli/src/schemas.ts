import { coordinatorSchema, dataSchema, trainingSchema } from '@convoy/coordinator/config'
import { engineSchema } from '@convoy/worker/config'
import { z } from 'zod'

/** Exit codes: done, failed, wrong usage, interrupted. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

const localSchema = z.object({
  workers: z.int().min(0).max(1024).optional().meta({
    description: 'worker processes on this machine (default: one a GPU, else one a core)',
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
