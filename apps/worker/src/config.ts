import { engineNames } from '@convoy/engines'
import { tokenSchema } from '@convoy/protocol/token'
import { z } from 'zod'

/** Every option of a worker, once; the command line makes a flag and an environment variable of each. */
export const engineSchema = z.object({
  engine: z
    .enum(engineNames)
    .default('auto')
    .meta({ description: 'what computes; auto and tfjs take the fastest that runs here', unit: 'NAME' }),
  precision: z.enum(['auto', 'float32', 'tf32', 'bf16']).default('auto').meta({
    description:
      'arithmetic; auto takes bf16 where the processor or GPU has it and is faster with it; tf32 is for cudnn',
    unit: 'NAME',
  }),
  threads: z.int().min(1).max(1024).default(1).meta({ description: 'threads of one worker', unit: 'N' }),
  device: z.int().min(0).max(1023).optional().meta({
    description: 'which GPU, from 0, as doctor lists them (default: 0; local workers take turns)',
    unit: 'N',
  }),
  gpu: z.boolean().default(false).meta({ description: 'refuse to compute on anything but a GPU' }),
})

/** How a worker's connection is made, and what becomes of it. */
export const connectionSchema = z.object({
  coordinator: z
    .string()
    .default('ws://127.0.0.1:7311')
    .meta({ description: 'address of the coordinator: ws://… or wss://…', unit: 'URL' }),
  token: tokenSchema.optional().meta({ description: 'what the coordinator asks for', unit: 'TEXT' }),
  tlsCa: z
    .string()
    .optional()
    .meta({ description: "PEM certificate that signed the coordinator's", unit: 'FILE' }),
  workerName: z
    .string()
    .regex(/^[\w.:@-]{1,100}$/, 'letters, digits and . : @ _ - only')
    .optional()
    .meta({ description: 'name to go by (default: host name and process id)', unit: 'NAME' }),
  grace: z
    .number()
    .positive()
    .default(10)
    .meta({ description: 'time to finish or hand back work after SIGTERM', unit: 'SECONDS' }),
  healthFile: z.string().optional().meta({
    description: 'file that says `joined` or `looking`, written every 5 s: for the probes of a supervisor',
    unit: 'FILE',
  }),
  giveUpAfter: z.number().min(0).default(600).meta({
    description: 'how long to look for a coordinator before failing; 0 is for ever',
    unit: 'SECONDS',
  }),
})

export const workerSchema = z.object({
  ...engineSchema.shape,
  ...connectionSchema.shape,
  data: z
    .string()
    .optional()
    .meta({ description: 'a data set of its own, which spares sending images', unit: 'SOURCE' }),
})

export type ConnectionConfig = z.infer<typeof connectionSchema>
export type EngineConfig = z.infer<typeof engineSchema>
export type WorkerConfig = z.infer<typeof workerSchema>
