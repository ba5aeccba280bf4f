import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { root } from '../convoy.ts'

/** The commands of a guide's `sh` blocks, by the title of the section they stand in, in order. */
export function commandsOf(guide: string): Map<string, string[]> {
  const text = readFileSync(path.join(root, 'docs', 'guides', guide), 'utf8')
  const sections = new Map<string, string[]>()
  for (const section of text.split(/^## /m).slice(1)) {
    const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block]) => block)
    if (blocks.length > 0) sections.set(section.split('\n')[0], blocks.flatMap(commandsIn))
  }
  return sections
}

/** A block's commands: lines, joined where one alone is not a whole command. */
function commandsIn(block: string): string[] {
  const commands: string[] = []
  let open = ''
  for (const line of block.trimEnd().split('\n')) {
    open += `${line}\n`
    // Of a here-document without its end bash only warns.
    const { status, stderr } = spawnSync('bash', ['-n', '-c', open], { encoding: 'utf8' })
    const whole = !line.endsWith('\\') && status === 0 && stderr === ''
    if (!whole) continue
    commands.push(open.trim())
    open = ''
  }
  if (open !== '') throw new Error(`this is no whole command: ${open}`)
  return commands
}

/** A reader at a shell: what a command exports is there for the next. */
export class Reader {
  readonly #folder: string
  readonly #state: string
  readonly #environment: NodeJS.ProcessEnv

  /**
   * @param folder Where the commands run.
   * @param state A file for what was exported.
   */
  constructor(folder: string, state: string, environment: NodeJS.ProcessEnv) {
    this.#folder = folder
    this.#state = state
    this.#environment = environment
  }

  /**
   * Runs a command to its end, or until `enough` of what it has said, as with Ctrl-C; gives what it said.
   *
   * Throws where it fails, where it warns, and where it takes longer than `seconds`.
   */
  async run(
    command: string,
    enough?: (said: string) => boolean | Promise<boolean>,
    seconds = 600,
  ): Promise<string> {
    const restore = existsSync(this.#state) ? `. ${this.#state}\n` : ''
    const keep = `\ncode=$?\nexport -p > ${this.#state}\nexit $code`
    const child = spawn('bash', ['-c', restore + command + keep], {
      cwd: this.#folder,
      env: this.#environment,
      stdio: ['ignore', 'pipe', 'pipe'],
      // What it starts ends with it.
      detached: true,
    })
    let said = ''
    let stopped = false
    let late = false
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (said += text))
    let looking = false
    const look = async () => {
      if (!enough || looking || stopped) return
      looking = true
      stopped = await Promise.resolve(enough(said)).catch(() => false)
      looking = false
      if (stopped && child.exitCode === null) process.kill(-child.pid!, 'SIGINT')
    }
    const looks = setInterval(() => void look(), 200)
    const timer = setTimeout(() => {
      late = true
      process.kill(-child.pid!, 'SIGKILL')
    }, seconds * 1_000)
    const code = await new Promise<number | null>((resolve) => child.once('close', resolve))
    clearTimeout(timer)
    clearInterval(looks)
    if (late) throw new Error(`after ${seconds} s this had not ended: ${command}\n${said}`)
    if (enough && !stopped) throw new Error(`this ended with ${code} too early: ${command}\n${said}`)
    if (!enough && code !== 0) throw new Error(`this ended with ${code}: ${command}\n${said}`)
    if (/^Warning:/m.test(said)) throw new Error(`this warns: ${command}\n${said}`)
    return said
  }
}
