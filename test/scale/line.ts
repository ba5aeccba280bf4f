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

  /** Begins to listen, and gives the port. */
  async open(): Promise<number> {
    this.#server.listen(0, '127.0.0.1')
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
  from.on('data', (bytes: Buffer) => {
    const now = performance.now()
    free = Math.max(now, free) + (1000 * bytes.length) / bytesPerSecond
    setTimeout(() => to.writable && to.write(bytes), free + delay - now)
    const full = free - now - QUEUE
    if (full <= 0) return
    from.pause()
    setTimeout(() => from.resume(), full)
  })
  from.on('end', () => setTimeout(() => to.end(), Math.max(0, free - performance.now()) + delay))
}
