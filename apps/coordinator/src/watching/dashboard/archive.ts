import type { LiveSummary } from '@convoy/protocol'
import { open, readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import type { RunEvent } from '../../events.ts'
import { short } from './curves.ts'
import { History } from './history.ts'

/** Bytes read at a time; between two reads everything else of the process goes on. */
const CHUNK = 1 << 17
/** Bytes at the beginning and end of a run's metrics in which its summary is looked for. */
const HEAD = 1 << 12
const TAIL = 1 << 18
/** Bytes of metrics from which on a run is shown from pieces of them first, and these pieces: how many, how large. */
const LARGE = 1 << 23
const [PIECES, PIECE] = [600, 1 << 11]
/** Histories of other runs that are kept. */
const KEPT = 4

type Kept<T> = { stamp: string; value: Promise<T> }
type Logged = RunEvent & { time?: number }

/** The name of a folder of a run, and nothing that leads elsewhere. */
export function isRunName(name: string): boolean {
  return /^[\w.-]{1,80}$/.test(name) && !/^\.+$/.test(name)
}

/** Reads a run's metrics line by line. A line that is torn, such as by a full disk, is passed over. */
export async function readMetrics(file: string, hear: (event: Logged, time: number) => void): Promise<void> {
  const handle = await open(file)
  try {
    const read = () => handle.read(Buffer.allocUnsafe(CHUNK), 0, CHUNK)
    let rest = Buffer.alloc(0)
    let coming = read()
    for (;;) {
      const { bytesRead, buffer: chunk } = await coming
      if (bytesRead === 0) return
      // The disk works while this is parsed.
      coming = read()
      const bytes = Buffer.concat([rest, chunk.subarray(0, bytesRead)])
      const end = bytes.lastIndexOf(10) + 1
      // A line longer than this is none of ours.
      rest = bytes.length - end > CHUNK ? Buffer.alloc(0) : Buffer.from(bytes.subarray(end))
      for (const line of bytes.toString('utf8', 0, end).split('\n')) {
        const event = parse(line)
        if (event) hear(event, event.time ?? 0)
      }
    }
  } finally {
    await handle.close()
  }
}

function parse(line: string): Logged | undefined {
  if (line === '') return undefined
  try {
    return JSON.parse(line) as Logged
  } catch {
    return undefined
  }
}

/** The runs that lie under one folder, as the page shows them. */
export class Archive {
  readonly #folder: string
  readonly #histories = new Map<string, Kept<History>>()
  readonly #summaries = new Map<string, Kept<LiveSummary | undefined>>()

  constructor(folder: string) {
    this.#folder = folder
  }

  /** The history of a run; undefined where there is none of this name. */
  async history(name: string): Promise<History | undefined> {
    if (!isRunName(name)) return undefined
    const history = await remember(this.#histories, name, this.#file(name), async (file) => {
      const history = new History()
      await readMetrics(file, (event, time) => history.hear(event, time))
      if (!['finished', 'stopped', 'diverged'].includes(history.phase)) history.phase = 'interrupted'
      history.checkpoint = await newestCheckpoint(path.join(this.#folder, name))
      return history
    })
    if (this.#histories.size > KEPT) this.#histories.delete(this.#histories.keys().next().value!)
    return history
  }

  /**
   * The history of a run from pieces of its metrics, where reading all of them would take a second or more: what can be shown
   * meanwhile. Undefined where that is not so, or `history` has it already.
   */
  async glance(name: string): Promise<History | undefined> {
    if (!isRunName(name) || this.#histories.has(name)) return undefined
    const handle = await open(this.#file(name)).catch(() => undefined)
    if (!handle) return undefined
    try {
      const { size } = await handle.stat()
      if (size < LARGE) return undefined
      const history = new History()
      const bytes = Buffer.alloc(PIECE)
      for (let i = 0; i < PIECES; i++) {
        const { bytesRead } = await handle.read(
          bytes,
          0,
          PIECE,
          Math.floor(((size - PIECE) * i) / (PIECES - 1)),
        )
        // The first and last line of a piece are not whole.
        const lines = bytes.toString('utf8', 0, bytesRead).split('\n')
        for (const line of lines.slice(i === 0 ? 0 : 1, -1)) {
          const event = parse(line)
          if (event) history.hear(event, event.time ?? 0)
        }
      }
      if (!['finished', 'stopped', 'diverged'].includes(history.phase)) history.phase = 'interrupted'
      return history
    } finally {
      await handle.close()
    }
  }

  /** All runs, newest first. */
  async list(): Promise<LiveSummary[]> {
    const names = await readdir(this.#folder).catch(() => [])
    const runs = await Promise.all(
      names
        .filter(isRunName)
        .map((name) =>
          remember(this.#summaries, name, this.#file(name), (file) => summarise(name, file)).catch(
            () => undefined,
          ),
        ),
    )
    return runs.filter((run) => run !== undefined).sort((a, b) => b.time - a.time)
  }

  /** The newest checkpoint file of a run. */
  async weights(name: string): Promise<{ file: string; step: number } | undefined> {
    if (!isRunName(name)) return undefined
    const step = await newestCheckpoint(path.join(this.#folder, name))
    if (step === null) return undefined
    return { file: path.join(this.#folder, name, 'checkpoints', `step-${step}.convoy`), step }
  }

  #file(name: string): string {
    return path.join(this.#folder, name, 'metrics.jsonl')
  }
}

/** What was made of a file, made again only once the file has changed; undefined where there is no file. */
async function remember<T>(
  kept: Map<string, Kept<T>>,
  name: string,
  file: string,
  make: (file: string) => Promise<T>,
): Promise<T | undefined> {
  const status = await stat(file).catch(() => undefined)
  if (!status?.isFile()) return undefined
  const stamp = `${status.size} ${status.mtimeMs}`
  const before = kept.get(name)
  if (before?.stamp === stamp) return before.value
  const value = make(file)
  kept.delete(name)
  kept.set(name, { stamp, value })
  value.catch(() => kept.delete(name))
  return value
}

async function newestCheckpoint(directory: string): Promise<number | null> {
  const names = await readdir(path.join(directory, 'checkpoints')).catch(() => [])
  const steps = names.flatMap((name) => /^step-(\d+)\.convoy$/.exec(name)?.[1] ?? []).map(Number)
  return steps.length > 0 ? Math.max(...steps) : null
}

/** What the first and last lines of a run's metrics say. */
async function summarise(name: string, file: string): Promise<LiveSummary | undefined> {
  const handle = await open(file)
  try {
    const { size, mtimeMs } = await handle.stat()
    const lines = async (at: number, length: number) => {
      const bytes = Buffer.alloc(Math.min(length, size - at))
      await handle.read(bytes, 0, bytes.length, at)
      return bytes.toString('utf8').split('\n')
    }
    const [first] = await lines(0, HEAD)
    const start = parse(first ?? '')
    const last = (await lines(Math.max(0, size - TAIL), TAIL)).reverse()
    const newest = <E extends RunEvent['event']>(event: E) =>
      parse(last.find((line) => line.includes(`"event":"${event}"`)) ?? '') as
        Extract<RunEvent, { event: E }> | undefined
    const done = newest('done')
    const test = newest('test')
    const reached = newest('step') ?? done
    if (start?.event !== 'start' && !reached) return undefined
    return {
      name,
      current: false,
      time: Math.round(mtimeMs),
      model: start?.event === 'start' ? start.model : '',
      step: reached?.step ?? 0,
      epoch: newest('epoch')?.epoch ?? done?.epoch ?? reached?.epoch ?? 0,
      testAccuracy: short(test?.testAccuracy ?? NaN),
      finished: done?.finished === true && last.slice(0, 2).some((line) => line.includes('"event":"done"')),
    }
  } finally {
    await handle.close()
  }
}
