import { asConvoyError, ConvoyError } from '@convoy/errors'
import { decodeFrame, encodeFrame } from '@convoy/protocol'
import { createHash } from 'node:crypto'
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { z } from 'zod'
import type { Moved } from '../training/index.ts'

/**
 * A checkpoint is everything that the next step depends on. The file is a frame as on the wire (header, then as float32
 * the parameters, the variables that they are made of, where there are such, and the velocity), followed by the SHA-256 of all before it. It is written to a temporary name, synced and
 * renamed, so that a file under its final name is whole unless the disk lied; the sum tells if it did.
 */
const header = z.strictObject({
  kind: z.literal('checkpoint'),
  version: z.literal(1),
  /** What decides the result besides the numbers here, as text; a checkpoint fits only a run with the same. */
  identity: z.string(),
  step: z.int().min(0),
  epoch: z.int().min(0),
  size: z.int().min(1),
  /** How many variables there are, and so velocities; left out where the parameters themselves are moved. */
  variablesSize: z.int().min(1).optional(),
  /** Sums over the samples of the running epoch, to go on with. */
  epochLoss: z.number(),
  epochCorrect: z.int().min(0),
  epochSamples: z.int().min(0),
  /** Seconds of training so far. */
  seconds: z.number().min(0),
  /** What the schedule's rate is multiplied by: less than 1 after the training was rolled back. */
  rateFactor: z.number().positive(),
  /** The step from which on that is so. */
  loweredAt: z.int().min(0).optional(),
  guard: z.strictObject({
    sum: z.number(),
    samples: z.int().min(0),
    windows: z.int().min(0),
    best: z.number().nullable(),
  }),
  /** The run's numerics class as text, and whether other classes took part. */
  numerics: z.string().nullable(),
  mixed: z.boolean(),
  /** The model, its classes and preprocessing (`networkSpec` of libs/weights), to use the parameters without the run. */
  network: z.unknown().optional(),
})

export type CheckpointHeader = Omit<z.infer<typeof header>, 'kind' | 'version' | 'variablesSize'>

export interface Checkpoint extends CheckpointHeader, Moved {}

const NAME = /^step-(\d+)\.convoy$/
/** What a process that was killed in the middle of a write leaves behind. */
const UNFINISHED = /^step-\d+\.convoy\.\d+\.tmp$/
const DIGEST = 32

const torn = (file: string, what: string) =>
  new ConvoyError('E_CHECKPOINT', `${file}: ${what}`, 'Use an older checkpoint; the run does so by itself.')

/** Encodes a checkpoint; the arrays are copied, so training may go on while the bytes are written. */
export function encodeCheckpoint(checkpoint: Checkpoint): Uint8Array {
  const { parameters, variables, velocity, ...rest } = checkpoint
  const body = variables
    ? encodeFrame(
        { kind: 'checkpoint', version: 1, ...rest, variablesSize: variables.length },
        ...[parameters, variables, velocity],
      )
    : encodeFrame({ kind: 'checkpoint', version: 1, ...rest }, parameters, velocity)
  return Buffer.concat([body, createHash('sha256').update(body).digest()])
}

/** Decodes and checks a checkpoint. Throws E_CHECKPOINT, naming `file`. */
export function decodeCheckpoint(bytes: Uint8Array, file: string): Checkpoint {
  if (bytes.length <= DIGEST) throw torn(file, 'the file is too short to be a checkpoint')
  const body = bytes.subarray(0, -DIGEST)
  if (!createHash('sha256').update(body).digest().equals(bytes.subarray(-DIGEST))) {
    throw torn(file, 'the file is torn: its checksum does not match')
  }
  let frame
  try {
    frame = decodeFrame(body)
  } catch {
    throw torn(file, 'the file is not a checkpoint')
  }
  const parsed = header.safeParse(frame.header)
  if (!parsed.success) throw torn(file, 'the file was written by another version of Convoy')
  const { kind: _kind, version: _version, variablesSize, ...rest } = parsed.data
  const { size } = rest
  const count = variablesSize === undefined ? 2 * size : size + 2 * variablesSize
  if (frame.payload.byteLength !== 4 * count) throw torn(file, 'the file has the wrong size')
  const numbers = new Float32Array(frame.payload.buffer, frame.payload.byteOffset, count)
  const parameters = numbers.slice(0, size)
  if (variablesSize === undefined) return { ...rest, parameters, velocity: numbers.slice(size) }
  const end = size + variablesSize
  return { ...rest, parameters, variables: numbers.slice(size, end), velocity: numbers.slice(end) }
}

/** Reads one checkpoint file. Throws E_CHECKPOINT. */
export async function readCheckpoint(file: string): Promise<Checkpoint> {
  let bytes
  try {
    bytes = await readFile(file)
  } catch (error) {
    throw new ConvoyError(
      'E_CHECKPOINT',
      `cannot read ${file}: ${(error as Error).message}`,
      'Check the path.',
    )
  }
  return decodeCheckpoint(bytes, file)
}

/** The checkpoints of one run, newest wins. */
export class CheckpointStore {
  readonly directory: string
  readonly #keep: number
  readonly #endsEpoch: (step: number) => boolean
  /** Files that were passed over: they stay, and are not counted among those that are kept. */
  readonly #torn = new Set<number>()
  #writing: Promise<void> | undefined
  /** The step that is, or was last, written. */
  #last = -1
  /** What waits for the write under way. */
  #next: { step: number; bytes: Uint8Array; ready: () => Promise<void>; written: Promise<void> } | undefined

  /**
   * @param keep How many checkpoints stay.
   * @param endsEpoch Whether a step ended an epoch: the newest such checkpoint stays too, to go back to.
   */
  constructor(directory: string, keep: number, endsEpoch: (step: number) => boolean = () => false) {
    this.directory = directory
    this.#keep = keep
    this.#endsEpoch = endsEpoch
  }

  /** The step numbers that have a checkpoint, newest first. */
  async #steps(): Promise<number[]> {
    const names = await readdir(this.directory).catch(() => [])
    return names
      .flatMap((name) => NAME.exec(name)?.[1] ?? [])
      .map(Number)
      .sort((a, b) => b - a)
  }

  #file(step: number): string {
    return path.join(this.directory, `step-${step}.convoy`)
  }

  /** The newest good checkpoint, or undefined; torn ones are told to `passedOver` and left where they are. */
  async newest(
    passedOver: (file: string, error: ConvoyError) => void,
  ): Promise<{ file: string; checkpoint: Checkpoint } | undefined> {
    for (const step of await this.#steps()) {
      const file = this.#file(step)
      try {
        return { file, checkpoint: await readCheckpoint(file) }
      } catch (error) {
        this.#torn.add(step)
        passedOver(file, asConvoyError(error))
      }
    }
    return undefined
  }

  /** Removes what was left half-written. To be called before the first write. */
  async clean(): Promise<void> {
    for (const name of await readdir(this.directory).catch(() => []))
      if (UNFINISHED.test(name)) await rm(path.join(this.directory, name), { force: true }).catch(() => {})
  }

  /** The newest good checkpoint of step `last` or before, and nothing after it: those are removed. */
  async rewind(last: number): Promise<Checkpoint | undefined> {
    await Promise.allSettled([this.#writing, this.#next?.written])
    for (const step of await this.#steps()) if (step > last) await rm(this.#file(step), { force: true })
    return (await this.newest(() => {}))?.checkpoint
  }

  /** Whether a write is under way: then a further one would only wait. */
  get busy(): boolean {
    return this.#writing !== undefined
  }

  /**
   * Writes a checkpoint and removes those beyond the newest `keep`. One write at a time; of those that wait for it only
   * the newest is written, so that a slow disk costs no memory. Rejects where the disk refuses, and leaves no half file behind.
   *
   * @param ready Awaited first; where it rejects, nothing is written.
   * @returns The file, or undefined where a newer checkpoint came first.
   */
  async write(
    checkpoint: Checkpoint,
    ready: () => Promise<void> = async () => {},
  ): Promise<string | undefined> {
    const { step } = checkpoint
    const bytes = encodeCheckpoint(checkpoint)
    const before = this.#writing
    if (!before && !this.#next) await (this.#writing = this.#write(step, bytes, ready))
    else {
      const written = this.#next?.written ?? before!.catch(() => {}).then(() => this.#writeNext())
      this.#next = { step, bytes, ready, written }
      await written
      if (this.#last !== step) return undefined
    }
    return this.#file(step)
  }

  #writeNext(): Promise<void> {
    const { step, bytes, ready } = this.#next!
    this.#next = undefined
    return (this.#writing = this.#write(step, bytes, ready))
  }

  async #write(step: number, bytes: Uint8Array, ready: () => Promise<void>): Promise<void> {
    this.#last = step
    try {
      await ready()
      await writeDurably(this.#file(step), bytes)
      this.#torn.delete(step)
      const steps = (await this.#steps()).filter((kept) => !this.#torn.has(kept))
      const epochEnd = steps.find(this.#endsEpoch)
      for (const old of steps.slice(this.#keep))
        if (old !== epochEnd) await rm(this.#file(old), { force: true })
    } finally {
      this.#writing = undefined
    }
  }
}

/** Writes a file so that under its name there is, at any moment, either the whole old or the whole new content. */
export async function writeDurably(file: string, bytes: Uint8Array): Promise<void> {
  await mkdir(path.dirname(file), { recursive: true })
  const temporary = `${file}.${process.pid}.tmp`
  try {
    const handle = await open(temporary, 'w')
    try {
      await handle.writeFile(bytes)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw error
  }
  // The rename itself is durable once the folder is synced; where folders cannot be, it is merely likely.
  const folder = await open(path.dirname(file), 'r').catch(() => undefined)
  await folder?.sync().catch(() => {})
  await folder?.close()
}

/** Whether a path exists. */
export async function exists(file: string): Promise<boolean> {
  return stat(file).then(
    () => true,
    () => false,
  )
}
