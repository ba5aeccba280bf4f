import type { LiveHistory, LiveMessage, LiveSummary } from '@convoy/protocol/live'

/** What the coordinator sends by itself. */
export type Pushed = Extract<LiveMessage, { kind: 'update' }>

export type LinkState = 'connecting' | 'open' | 'lost' | 'token'

const TOKEN = 'convoy-token'
/** Milliseconds until the first try to connect again, and the longest time between two tries. */
const [SOON, LATEST] = [500, 4_000]

/** The page's line to the coordinator. It comes back by itself when it breaks. */
export class Connection {
  state: LinkState = 'connecting'
  /** The run that the coordinator trains. */
  run = ''
  /** Why a token is asked for, or what the coordinator says of why there is no connection. */
  reason = ''
  /** Called on every change of `state`. */
  onstate: () => void = () => {}
  /** Called with what the coordinator sends by itself. */
  onpush: (message: Pushed) => void = () => {}
  #socket: WebSocket | undefined
  #build = ''
  #wait = SOON
  #retry: number | undefined
  #nextId = 1
  readonly #waiting = new Map<
    number,
    { resolve: (message: LiveMessage) => void; reject: (e: Error) => void }
  >()

  constructor() {
    // Whoever looks again wants to see it now.
    const now = () => this.state === 'lost' && !document.hidden && this.connect()
    document.addEventListener('visibilitychange', now)
    addEventListener('online', now)
  }

  get token(): string | null {
    return sessionStorage.getItem(TOKEN)
  }

  set token(token: string) {
    // Copied from a file, it ends with a line.
    sessionStorage.setItem(TOKEN, token.trim())
    this.connect()
  }

  connect(): void {
    clearTimeout(this.#retry)
    this.#socket?.close()
    // Relative to the page, which may be behind a path prefix of a proxy.
    const address = new URL('live', location.href)
    address.protocol = address.protocol.replace('http', 'ws')
    let opened = false
    const socket = new WebSocket(address)
    this.#socket = socket
    socket.onopen = () => {
      opened = true
      const { token } = this
      socket.send(JSON.stringify(token === null ? { kind: 'hello' } : { kind: 'hello', token }))
    }
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#hear(JSON.parse(data as string) as LiveMessage)
    }
    socket.onclose = () => {
      if (socket !== this.#socket) return
      for (const { reject } of this.#waiting.values()) reject(new Error('The connection was lost.'))
      this.#waiting.clear()
      if (this.state === 'token') return
      this.#retry = setTimeout(() => this.connect(), this.#wait)
      this.#wait = Math.min(LATEST, 1.5 * this.#wait)
      if (opened) this.reason = ''
      else void this.#askWhy(socket)
      this.#to('lost')
    }
  }

  /**
   * A run's steps `from` to `to` (null: to its end), in about `points` points; not `whole`: at once, of what can be read at once.
   * Rejects where there is no such run.
   */
  async history(
    run: string,
    from: number,
    to: number | null,
    points: number,
    whole = true,
  ): Promise<LiveHistory> {
    const answer = await this.#ask({ kind: 'history', run, from, to, points, whole })
    return (answer as Extract<LiveMessage, { kind: 'history' }>).history
  }

  /** All runs that lie beside this one. */
  async runs(): Promise<LiveSummary[]> {
    return ((await this.#ask({ kind: 'runs' })) as Extract<LiveMessage, { kind: 'runs' }>).runs
  }

  #ask(message: object): Promise<LiveMessage> {
    return new Promise((resolve, reject) => {
      if (this.state !== 'open') return reject(new Error('There is no connection.'))
      const id = this.#nextId++
      this.#waiting.set(id, { resolve, reject })
      this.#socket!.send(JSON.stringify({ ...message, id }))
    })
  }

  #hear(message: LiveMessage): void {
    switch (message.kind) {
      case 'welcome':
        // The coordinator came back as another version: so must its page.
        if (this.#build && this.#build !== message.build) return location.reload()
        this.#build = message.build
        this.run = message.run
        this.#wait = SOON
        return this.#to('open')
      case 'token':
        this.reason = this.token === null ? 'The coordinator asks for its token.' : message.reason
        return this.#to('token')
      case 'history':
      case 'runs':
        this.#waiting.get(message.id)?.resolve(message)
        this.#waiting.delete(message.id)
        return
      case 'missing':
        this.#waiting.get(message.id)?.reject(new Error(message.reason))
        this.#waiting.delete(message.id)
        return
      case 'update':
        return this.onpush(message)
      default:
        message satisfies never
    }
  }

  /** A browser does not tell why a WebSocket was refused; the coordinator tells whoever asks there without one. */
  async #askWhy(socket: WebSocket): Promise<void> {
    const told = await fetch('live', { method: 'POST' })
      .then((answer) => answer.json() as Promise<{ message?: unknown; remedy?: unknown }>)
      .catch(() => undefined)
    if (socket !== this.#socket || this.state !== 'lost') return
    this.reason = typeof told?.message === 'string' ? `${told.message}. ${String(told.remedy)}` : ''
    this.#to('lost')
  }

  #to(state: LinkState): void {
    this.state = state
    this.onstate()
  }
}
