import { ConvoyError } from '@convoy/errors'
import { modelSpec } from '@convoy/model'
import { optimizerSpec } from '@convoy/optim'
import { z } from 'zod'
import { decodeFrame, type Frame } from './frame.ts'

/** Raised whenever a message changes; both sides must have the same. */
export const PROTOCOL_VERSION = 6

/** Bytes that the header of a worker's message may have; the longest one holds 2,000 characters of text. */
const MAX_WORKER_HEADER = 16_384

const count = z.int().min(0).max(0x7fff_ffff)
const text = z.string().max(2_000)
const name = z.string().regex(/^[\w.:@-]{1,100}$/)

/** A tree node: leaves [lo, hi) of the batch; in an evaluation, samples [lo, hi) of the test set. */
const node = { lo: count, hi: count }

const numerics = z.strictObject({
  engine: z.string().max(100),
  version: z.string().max(200),
  precision: z.enum(['float32', 'tf32', 'bf16']),
  instructionSet: z.string().max(100),
  threads: z.int().min(1).max(4096),
})

/** worker → coordinator: who I am and what I compute with. The first message on a connection. */
const hello = z.strictObject({
  kind: z.literal('hello'),
  version: z.int(),
  name,
  /** Random, drawn once a process: tells a reconnecting worker from another with its name. */
  instance: z.string().regex(/^[0-9a-f]{16,64}$/),
  engine: text,
  numerics,
  cores: z.int().min(1).max(65_536),
  /** Whether I am a relay: I add the sums of workers of my own, of larger nodes than an engine is given. */
  relay: z.literal(true).optional(),
  /** Fingerprint of the data set that I hold myself, if any. */
  fingerprint: z.string().max(64).optional(),
})

/** worker → coordinator: my engine is compiled; send parameters and work. */
const ready = z.strictObject({ kind: z.literal('ready') })

/**
 * worker → coordinator: a node's sum. Payload: the flat gradient, in the encoding that was asked for; of a round, the sum over its
 * replicas of samples·(parameters before - after).
 */
const gradient = z.strictObject({
  kind: z.literal('gradient'),
  id: count,
  step: count,
  ...node,
  count,
  /** Any number: training that diverges is no fault of the wire's. */
  loss: z.custom<number>((value) => typeof value === 'number'),
  correct: count,
  /** Time the engine took, in seconds. */
  seconds: z.number().min(0),
  /** Whether this is only what is before the cut, the rest having come as `tail`. */
  head: z.literal(true).optional(),
})

/** worker → coordinator: a node's sum from the cut on, ahead of `gradient`. Payload: that part of it, in the same encoding. */
const tail = z.strictObject({ kind: z.literal('tail'), id: count, step: count, ...node })

/** worker → coordinator: the answer to an evaluation. Payload: float32 logits [hi - lo, classes]. */
const evaluation = z.strictObject({
  kind: z.literal('evaluation'),
  id: count,
  step: count,
  ...node,
  seconds: z.number().min(0),
})

/** worker → coordinator: I am going, or have no workers now. I still answer the request named here, if any; give the rest to others. */
const leaving = z.strictObject({ kind: z.literal('leaving'), finishing: count.optional() })

/** worker → coordinator: I could not do this. */
const failed = z.strictObject({ kind: z.literal('failed'), id: count, step: count, ...node, why: text })

/** relay → coordinator: a worker of mine gave wrong gradients, from step `since` on perhaps, and is gone. */
const dishonest = z.strictObject({
  kind: z.literal('dishonest'),
  worker: name,
  step: count,
  ...node,
  since: count,
})

const workerMessage = z.discriminatedUnion('kind', [
  hello,
  ready,
  gradient,
  tail,
  evaluation,
  leaving,
  failed,
  dishonest,
])
export type WorkerMessage = z.infer<typeof workerMessage>

/** What one message of either side looks like by its kind. */
export type MessageOf<M extends { kind: string }, K extends M['kind']> = Extract<M, { kind: K }>

/** How nodes are rounded that are put together: those of so many leaves, as they would travel. */
const rounding = z.strictObject({
  encoding: z.enum(['bf16', 'int8']),
  leaves: z.int().min(1).max(65_536),
})

/** coordinator → worker: you are in; compile this. */
const welcome = z.strictObject({
  kind: z.literal('welcome'),
  version: z.int(),
  /** The name you go by from now on. */
  name,
  run: text,
  model: modelSpec,
  /** Checked by libs/data, which owns the form of these two. */
  preprocessing: z.unknown(),
  augmentation: z.unknown(),
  seed: z.number().int().min(0),
  /** Samples of a leaf of images as large as the data set's. */
  microBatch: z.int().min(1).max(65_536),
  /** Smaller sizes that images have in parts of the run, and how many samples a leaf then has. */
  smaller: z
    .array(z.strictObject({ size: z.int().min(1).max(4096), microBatch: z.int().min(1).max(65_536) }))
    .max(64),
  fingerprint: z.string().max(64),
  /** Whether `work` carries samples (false where your data set has the run's fingerprint). */
  samples: z.boolean(),
  /** How parameters are sent. */
  down: z.enum(['float32', 'bf16']),
  /** For relays: the share of gradients that a second worker repeats, and how nodes are rounded, where they are. */
  relay: z.strictObject({ verify: z.number().min(0).max(1), rounding: rounding.optional() }).optional(),
  /** Where steps are rounds: a leaf is a replica, which takes so many steps by itself, of so many samples each. */
  rounds: z
    .strictObject({
      steps: z.int().min(1).max(10_000),
      batchSize: z.int().min(1).max(1_000_000),
      optimizer: optimizerSpec,
    })
    .optional(),
})

/**
 * coordinator → worker: the parameters after `step` updates. Payload: all of them, flat, as `down` of `welcome` says; or those before
 * number `from`, where the others went ahead as this version's `parametersTail`.
 */
const parameters = z.strictObject({
  kind: z.literal('parameters'),
  step: count,
  ahead: z.strictObject({ from: count, version: count }).optional(),
})

/** coordinator → worker: parameters from number `from` on, which `parameters` may complete; not to be used before, nor if it does not. */
const parametersTail = z.strictObject({ kind: z.literal('parametersTail'), from: count, version: count })

/**
 * coordinator → worker: compute this node, on the parameters of `step`.
 * Payload: uint32 sample ids [n], then, where work carries samples, int32 labels [n] and the pixels of n images.
 */
const work = z.strictObject({
  kind: z.literal('work'),
  task: z.enum(['gradient', 'evaluate']),
  /** Names this request on this connection; the answer carries it. */
  id: count,
  epoch: count,
  step: count,
  ...node,
  /** Samples in the payload. */
  count,
  /** Height and width that the images are made smaller to; left out where they stay as they are. */
  size: z.int().min(1).max(4096).optional(),
  /**
   * Of a round: the number of its first batch among those of the run, which dropout is drawn by, and the rate of each step of a replica.
   * Its leaf n has the batches from n·steps on.
   */
  round: z.strictObject({ step: count, rates: z.array(z.number().min(0)).min(1).max(10_000) }).optional(),
  pixels: z.enum(['uint8', 'float32', 'none']),
  /** How the gradient travels back. */
  encoding: z.enum(['float32', 'bf16', 'int8']),
  /** Where in the gradient a kernel begins whose numbers, and those behind, may come first, as `tail`. */
  cut: z.int().min(1).optional(),
})

/** coordinator → worker: no answer to this is needed any more. */
const cancel = z.strictObject({ kind: z.literal('cancel'), id: count, step: count, ...node })

/** coordinator → worker: an answer of yours was not taken, and why. */
const refused = z.strictObject({
  kind: z.literal('refused'),
  id: count.optional(),
  code: text,
  message: text,
})

/** coordinator → worker: this connection ends. */
const goodbye = z.strictObject({
  kind: z.literal('goodbye'),
  code: text,
  message: text,
  remedy: text,
  /** Whether coming back later makes sense, and after how many seconds. */
  retryAfter: z.number().min(0).optional(),
})

const coordinatorMessage = z.discriminatedUnion('kind', [
  welcome,
  parameters,
  parametersTail,
  work,
  cancel,
  refused,
  goodbye,
])
export type CoordinatorMessage = z.infer<typeof coordinatorMessage>

export interface Received<Message> {
  readonly message: Message
  readonly payload: Uint8Array
}

/** What a peer gave for a word or number, or of what type it is: printing anything else could fail. */
function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, 40))
  return typeof value === 'number' ? String(value) : typeof value
}

function check<Message>(schema: z.ZodType<Message>, frame: Frame): Received<Message> {
  const parsed = schema.safeParse(frame.header)
  if (parsed.success) return { message: parsed.data, payload: frame.payload }
  const issue = parsed.error.issues[0]
  const kind = (frame.header as { kind?: unknown } | null)?.kind
  throw new ConvoyError(
    'E_MESSAGE',
    `a message of kind ${shown(kind)} is malformed at ${issue.path.join('.') || 'its top'}: ${issue.message}`,
    'Use the same version of Convoy on both sides.',
  )
}

function checkVersion(frame: Frame, kind: string): void {
  const header = frame.header as { kind?: unknown; version?: unknown } | null
  if (header?.kind === kind && header.version !== PROTOCOL_VERSION) {
    throw new ConvoyError(
      'E_PROTOCOL_VERSION',
      `this side speaks protocol version ${PROTOCOL_VERSION}, the other ${shown(header.version)}`,
      'Install the same version of Convoy on coordinator and workers.',
    )
  }
}

/**
 * Takes apart and checks a frame from a worker. Throws E_FRAME, E_MESSAGE, E_TOO_LARGE or E_PROTOCOL_VERSION, without a stack:
 * making them took a fifth of the time of a coordinator that was flooded with what is malformed.
 */
export function readWorkerMessage(bytes: Uint8Array): Received<WorkerMessage> {
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return read(bytes)
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

const withPayload: ReadonlySet<string> = new Set(['gradient', 'tail', 'evaluation'])

function read(bytes: Uint8Array): Received<WorkerMessage> {
  const frame = decodeFrame(bytes, MAX_WORKER_HEADER)
  checkVersion(frame, 'hello')
  const received = check(workerMessage, frame)
  const { kind } = received.message
  if (received.payload.byteLength > 0 && !withPayload.has(kind)) {
    throw new ConvoyError('E_TOO_LARGE', `a ${kind} has no payload`, 'Use the same version of Convoy.')
  }
  return received
}

/** Takes apart and checks a frame from the coordinator. Throws E_MESSAGE or E_PROTOCOL_VERSION. */
export function readCoordinatorMessage(bytes: Uint8Array): Received<CoordinatorMessage> {
  const frame = decodeFrame(bytes)
  checkVersion(frame, 'welcome')
  return check(coordinatorMessage, frame)
}
