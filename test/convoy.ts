import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Where `./convoy` is. */
export const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)))

export interface Line {
  event: string
  [key: string]: unknown
}

/** A `convoy` process under test, and what it printed. */
export class Convoy {
  readonly child: ChildProcess
  readonly lines: Line[] = []
  text = ''
  /** Exit code, or the signal that ended it. */
  readonly ended: Promise<number | string>
  readonly #watchers = new Set<() => void>()

  /**
   * Starts `./convoy` with arguments, in an environment without the caller's own settings.
   *
   * @param detached Whether Ctrl-C at the terminal is kept from it.
   */
  constructor(args: readonly string[], environment: NodeJS.ProcessEnv = {}, detached = false) {
    const clean = Object.fromEntries(
      Object.entries(process.env).filter(([key]) => !/^(CONVOY|KUBERNETES)_/.test(key)),
    )
    this.child = spawn(process.execPath, [path.join(root, 'tools', 'launch.mjs'), ...args], {
      env: { ...clean, ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
      detached,
    })
    let rest = ''
    this.child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk
      const parts = (rest + chunk).split('\n')
      rest = parts.pop()!
      for (const part of parts) {
        try {
          this.lines.push(JSON.parse(part) as Line)
        } catch {
          // Words for a person.
        }
      }
      this.#watchers.forEach((watcher) => watcher())
    })
    this.child.stderr!.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk
      this.#watchers.forEach((watcher) => watcher())
    })
    this.ended = new Promise((resolve) => this.child.once('exit', (code, signal) => resolve(code ?? signal!)))
  }

  /** Waits until `ready` gives something; fails when the process ends before. */
  async until<T>(ready: (convoy: this) => T | undefined | false): Promise<T> {
    let watcher: (() => void) | undefined
    const found = new Promise<T>((resolve) => {
      watcher = () => {
        const value = ready(this)
        if (value !== undefined && value !== false) resolve(value)
      }
      this.#watchers.add(watcher)
      watcher()
    })
    const over = this.ended.then((code) => {
      const value = ready(this)
      if (value !== undefined && value !== false) return value
      throw new Error(`convoy ended with ${code} before that: ${this.text.slice(-2000)}`)
    })
    return Promise.race([found, over]).finally(() => this.#watchers.delete(watcher!))
  }

  event(name: string): Line | undefined {
    return this.lines.find(({ event }) => event === name)
  }

  /** Waits until a coordinator listens, and gives its address: that of workers or that of the page. */
  async address(of: 'url' | 'dashboard' = 'url'): Promise<string> {
    return (await this.until((convoy) => convoy.event('listening')))[of] as string
  }

  /** Waits for the end and gives the `done` line. */
  async done(): Promise<Line> {
    const code = await this.ended
    const last = this.lines.at(-1)
    if (last?.event !== 'done')
      throw new Error(`convoy ended with ${code} and no done line: ${this.text.slice(-2000)}`)
    return last
  }
}

/** Process ids of the worker processes that a local cluster started. */
export async function childrenOf(pid: number): Promise<number[]> {
  const { readFile } = await import('node:fs/promises')
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')
  return text.trim().split(/\s+/).map(Number)
}

/** A port that nobody uses now. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

/** A folder of the test's own; removed by the returned function. */
export function scratch(): { folder: string; remove: () => void } {
  const folder = mkdtempSync(path.join(tmpdir(), 'convoy-test-'))
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}
