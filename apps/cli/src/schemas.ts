import { coordinatorSchema, dataSchema } from '@convoy/coordinator'
import { engineSchema } from '@convoy/worker'
import { z } from 'zod'

/** Exit codes: done, failed, wrong usage, interrupted. */
export const EXIT = { done: 0, failed: 1, usage: 2, interrupted: 130 } as const

const localSchema = z.object({
  workers: z.int().min(0).max(1024).optional().meta({
    description: 'worker processes on this machine (default: one a GPU, else one a core)',
    unit: 'N',
  }),
})
/** A local cluster has the options of its coordinator and of its workers' engines. */
export const trainSchema = z.object({
  ...localSchema.shape,
  ...engineSchema.shape,
  ...coordinatorSchema.shape,
})
export const evaluateSchema = z.object({ ...localSchema.shape, ...engineSchema.shape, ...dataSchema.shape })
