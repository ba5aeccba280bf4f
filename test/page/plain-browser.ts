import { spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { WebSocket } from 'ws'
import { chromiumPath, flags } from '../browser/browser.ts'

/** Clock ticks a second in which Linux tells CPU time to programs. */
const TICKS = 100

/** `/proc/PID/stat` behind the name of the program, which may hold anything. */
function statOf(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

/** CPU seconds of a process so far, of all its threads, with those of children that ended and were waited for. */
export function cpuSeconds(pid: number): number {
  const [utime, stime, cutime, cstime] = statOf(pid).slice(11, 15).map(Number)
  return (utime + stime + cutime + cstime) / TICKS
}

/** A process and all that came from it. */
function family(pid: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      parents.set(Number(name), Number(statOf(Number(name))[1]))
    } catch {
      // It has just ended.
    }
  }
  const members = [pid]
  for (const member of members) {
    for (const [child, parent] of parents) if (parent === member) members.push(child)
  }
  return members
}

/**
 * Chromium as a person has it: nobody is attached to its pages, who would be told of every message and cost time. Three pages
 * are three windows, or three tabs of one window, of which one is seen.
 */
export class PlainBrowser {
  readonly #folder = mkdtempSync(path.join(tmpdir(), 'convoy-chromium-'))
  readonly #child
  readonly #endpoint: Promise<string>

  constructor() {
    this.#child = spawn(
      chromiumPath!,
      [
        ...['--headless=new', '--remote-debugging-port=0', `--user-data-dir=${this.#folder}`],
        ...['--window-size=1440,900', ...flags, 'about:blank'],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] },
    )
    this.#endpoint = new Promise((resolve) => {
      let text = ''
      this.#child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk
        const found = /DevTools listening on (\S+)/.exec(text)
        if (found) resolve(found[1])
      })
    })
  }

  /** Stops all its processes, so that its pages are open and cost nothing, or lets them go on. */
  freeze(still: boolean): void {
    for (const pid of family(this.#child.pid!)) process.kill(pid, still ? 'SIGSTOP' : 'SIGCONT')
  }

  /** CPU seconds of all its processes so far. */
  get cpuSeconds(): number {
    return family(this.#child.pid!).reduce((sum, pid) => {
      try {
        return sum + cpuSeconds(pid)
      } catch {
        return sum
      }
    }, 0)
  }

  /** Opens pages, waits until an expression is true in each of them that is seen, and gives what closes them. */
  async open(url: string, count: number, windows: boolean, ready: string): Promise<() => Promise<void>> {
    const socket = new WebSocket(await this.#endpoint)
    await new Promise((resolve) => socket.once('open', resolve))
    let id = 0
    const call = <T>(method: string, params: object, sessionId?: string) => {
      const mine = ++id
      socket.send(JSON.stringify({ id: mine, method, params, sessionId }))
      return new Promise<T>((resolve, reject) => {
        const hear = (data: Buffer) => {
          const answer = JSON.parse(data.toString()) as { id?: number; result?: T; error?: object }
          if (answer.id !== mine) return
          socket.off('message', hear)
          if (answer.error) reject(new Error(`${method}: ${JSON.stringify(answer.error)}`))
          else resolve(answer.result!)
        }
        socket.on('message', hear)
      })
    }
    const targets: string[] = []
    let seen = 0
    for (let i = 0; i < count; i++) {
      const { targetId } = await call<{ targetId: string }>('Target.createTarget', {
        url,
        newWindow: windows,
      })
      targets.push(targetId)
    }
    for (const targetId of targets) {
      const { sessionId } = await call<{ sessionId: string }>('Target.attachToTarget', {
        targetId,
        flatten: true,
      })
      const evaluate = async (expression: string) =>
        (await call<{ result: { value: unknown } }>('Runtime.evaluate', { expression }, sessionId)).result
          .value
      if ((await evaluate('document.hidden')) === false) {
        seen++
        while (!(await evaluate(ready))) await sleep(50)
      }
      await call('Target.detachFromTarget', { sessionId })
    }
    socket.close()
    if (seen !== (windows ? count : 1)) throw new Error(`${seen} of ${count} pages are seen`)
    return async () => {
      const { port } = new URL(await this.#endpoint)
      for (const target of targets) await fetch(`http://127.0.0.1:${port}/json/close/${target}`)
    }
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve))
    this.#child.kill('SIGTERM')
    await ended
    // Its last processes may still be writing.
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  }
}
