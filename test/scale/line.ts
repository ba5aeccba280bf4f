import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'

/** What a line may hold beyond its delay, in milliseconds of its speed: as much as a router keeps for it. */
const QUEUE = 200

/**
 * A port behind which another is reached by a thin, long line: a speed and a delay each way, on every connection anew. A kernel could do
 * the same, with rights that a benchmark should not need.
 */
export class Line {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  /**
   * @param port On this machine, what is behind it.
   * @param bytesPerSecond Each way.
   * @param delay Each way, in milliseconds.
   */
  constructor(port: number, bytesPerSecond: number, delay: number) {
    this.#server = createServer((near) => {
      const far = connect(port, '127.0.0.1')
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        this.#sockets.add(from)
        from.setNoDelay(true)
        from.on('error', () => to.destroy())
        from.on('close', () => this.#sockets.delete(from))
        carry(from, to, bytesPerSecond, delay)
      }
    })
  }

  /** Begins to listen at an address of this machine, and gives the port. */
  async open(host: string): Promise<number> {
    this.#server.listen(0, host)
    await once(this.#server, 'listening')
    return (this.#server.address() as AddressInfo).port
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }
}

function carry(from: Socket, to: Socket, bytesPerSecond: number, delay: number): void {
  /** When all that it was given has gone into the line. */
  let free = 0
  /** What is in the line, and when it comes out. One timer at a time: of several, Node.js may call a later one first. */
  const within: { bytes: Buffer | undefined; at: number }[] = []
  const come = () => {
    while (within.length > 0 && within[0].at <= performance.now()) {
      const { bytes } = within.shift()!
      if (!bytes) to.end()
      else if (to.writable) to.write(bytes)
    }
    if (within.length > 0) setTimeout(come, within[0].at - performance.now())
  }
  const go = (bytes: Buffer | undefined) => {
    const now = performance.now()
    const at = Math.max(now, free) + delay
    within.push({ bytes, at })
    if (within.length === 1) setTimeout(come, at - now)
  }
  from.on('data', (bytes: Buffer) => {
    const now = performance.now()
    free = Math.max(now, free) + (1000 * bytes.length) / bytesPerSecond
    go(bytes)
    const full = free - now - QUEUE
    if (full <= 0) return
    from.pause()
    setTimeout(() => from.resume(), full)
  })
  from.on('end', () => go(undefined))
}
