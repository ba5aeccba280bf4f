import { spawn, type ChildProcess } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileOf, LeftOut, partNames, parts, type Ground, type PartName } from './parts.ts'

/** What a part came to, as its file has it. */
export interface Outcome {
  readonly part: PartName
  readonly status: 'passed' | 'failed' | 'left out'
  /** Where it did not pass. */
  readonly why?: string
  readonly seconds: number
  readonly figures?: Record<string, unknown>
}

/** Runs one part, in this process, and writes its file. */
export async function runPart(name: PartName, ground: Ground): Promise<void> {
  const started = performance.now()
  const settle = (status: Outcome['status'], rest: Partial<Outcome>) =>
    write(ground.out, { part: name, status, seconds: (performance.now() - started) / 1000, ...rest })
  try {
    settle('passed', { figures: await parts[name].run(ground) })
  } catch (error) {
    const why = (error as Error).message
    console.log((error as Error).stack)
    settle(error instanceof LeftOut ? 'left out' : 'failed', { why })
  }
}

const write = (out: string, outcome: Outcome) =>
  writeFileSync(fileOf(out, outcome.part), `${JSON.stringify(outcome)}\n`)

function read(out: string, name: PartName): Outcome | undefined {
  try {
    return JSON.parse(readFileSync(fileOf(out, name), 'utf8')) as Outcome
  } catch {
    return undefined
  }
}

export interface ProofOptions {
  readonly out: string
  /** Those to run; all unless told. */
  readonly only: readonly PartName[]
  /** What else a part's process is told. */
  readonly args: readonly string[]
  readonly signal: AbortSignal
  /** Times the minutes that each part may take: for machines that are slow or busy. */
  readonly patience: number
  /** Is told of each part before it runs and after. */
  readonly tell: (name: PartName, outcome?: Outcome & { kept: boolean }) => void
}

/**
 * Runs the parts one after another, each in a process of its own, so that none ends another. Those that passed before are kept;
 * a part that is broken off is run again. What a part prints is in its .log.
 */
export async function prove({ out, only, args, signal, patience, tell }: ProofOptions): Promise<Outcome[]> {
  mkdirSync(out, { recursive: true })
  const outcomes: Outcome[] = []
  for (const name of partNames) {
    if (signal.aborted) break
    if (!only.includes(name)) continue
    const before = read(out, name)
    const kept = before?.status === 'passed'
    tell(name)
    const outcome = kept ? before : await runApart(name, out, args, signal, patience)
    if (signal.aborted) break
    outcomes.push(outcome)
    tell(name, { ...outcome, kept })
  }
  return outcomes
}

async function runApart(
  name: PartName,
  out: string,
  args: readonly string[],
  signal: AbortSignal,
  patience: number,
): Promise<Outcome> {
  const fail = (status: Outcome['status'], why: string, seconds = 0): Outcome => {
    const outcome = { part: name, status, why, seconds }
    write(out, outcome)
    return outcome
  }
  const engine = read(out, 'engine')
  if (name !== 'engine' && engine && engine.status !== 'passed')
    return fail('left out', `there is no engine to prove: ${engine.why}`)
  if (existsSync(fileOf(out, name))) writeFileSync(fileOf(out, name), '')
  const started = performance.now()
  const log = openSync(path.join(out, `${name}.log`), 'w')
  // A group of its own: what a part started ends with it.
  const child = spawn(process.execPath, [process.argv[1], 'part', name, '--out', out, ...args], {
    stdio: ['ignore', log, log],
    detached: true,
  })
  closeSync(log)
  const minutes = patience * parts[name].minutes
  let late = false
  const watch = setTimeout(() => {
    late = true
    kill(child)
  }, minutes * 60_000)
  const stop = () => kill(child)
  signal.addEventListener('abort', stop)
  const [code, by] = await new Promise<[number | null, string | null]>((resolve) =>
    child.once('exit', (...ended) => resolve(ended)),
  )
  clearTimeout(watch)
  signal.removeEventListener('abort', stop)
  const seconds = (performance.now() - started) / 1000
  if (late) return fail('failed', `not done within ${minutes} minutes; run again to go on`, seconds)
  return read(out, name) ?? fail('failed', `its process ended with ${code ?? by}; see ${name}.log`, seconds)
}

function kill({ pid }: ChildProcess): void {
  try {
    process.kill(-pid!, 'SIGTERM')
  } catch {
    // It has ended.
  }
}
