import { once } from 'node:events'
import { createServer, request, type IncomingMessage, type Server } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { WebSocket, WebSocketServer } from 'ws'
import { Convoy } from './convoy.ts'

/** A coordinator of a small run, and the port that it listens on. */
export async function smallCoordinator(...args: string[]): Promise<{ run: Convoy; port: number }> {
  const run = new Convoy([
    ...['coordinator', '--data', 'synthetic', '--limit-train', '100', '--limit-test', '20', '--epochs', '2'],
    ...['--width', '0.125', '--port', '0', '--json', ...args],
  ])
  return { run, port: Number(new URL(await run.address()).port) }
}

interface ProxyOptions {
  /** Taken off the front of each path; what does not begin with it is not found. */
  readonly prefix?: string
  /** Passes plain requests only, as nginx does unless told otherwise. */
  readonly plainOnly?: boolean
  /** Ends connections on which nothing moved for so long, in milliseconds. */
  readonly idle?: number
}

/** A reverse proxy, which tells the server behind it another Host, as nginx does. */
export class Proxy {
  readonly #http: Server
  readonly #sockets = new Set<Socket>()
  /** WebSockets that were ended for being idle. */
  idled = 0

  constructor(port: number, { prefix = '', plainOnly = false, idle }: ProxyOptions = {}) {
    const host = `127.0.0.1:${port}`
    const inner = ({ url = '' }: IncomingMessage) =>
      url.startsWith(prefix) ? url.slice(prefix.length) || '/' : undefined
    this.#http = createServer((asked, answer) => {
      const path = inner(asked)
      if (path === undefined) return answer.writeHead(404).end()
      const { upgrade: _, connection: __, ...headers } = asked.headers
      const onward = request({
        host: '127.0.0.1',
        port,
        path,
        method: asked.method,
        headers: { ...headers, host },
      })
      onward.on('response', (got) => got.pipe(answer.writeHead(got.statusCode!, got.headers)))
      onward.on('error', () => answer.destroy())
      asked.pipe(onward)
    })
    this.#http.on('connection', (socket: Socket) => {
      this.#sockets.add(socket)
      socket.on('close', () => this.#sockets.delete(socket))
    })
    // Without a listener, Node.js answers an upgrade as a plain request.
    if (plainOnly) return
    this.#http.on('upgrade', (asked: IncomingMessage, near: Socket, head: Buffer) => {
      const far = connect(port, '127.0.0.1')
      const lines = Object.entries({ ...asked.headers, host }).map(
        ([name, value]) => `${name}: ${String(value)}`,
      )
      far.write(`${asked.method} ${inner(asked) ?? '/nothing'} HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\n`)
      far.write(head)
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.pipe(to)
        from.on('error', () => to.destroy())
        from.on('close', () => to.destroy())
        if (idle === undefined) continue
        from.setTimeout(idle, () => {
          this.idled++
          from.destroy()
        })
      }
    })
  }

  /** Starts; resolves with the port. */
  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#http.listen(0, '127.0.0.1', resolve))
    return (this.#http.address() as AddressInfo).port
  }

  close(): void {
    this.#http.close()
    this.#sockets.forEach((socket) => socket.destroy())
  }
}

/** What a gateway is that takes WebSocket messages apart: it passes those on that are not too long for it. */
export class Gateway {
  readonly #server = new WebSocketServer({
    port: 0,
    host: '127.0.0.1',
    perMessageDeflate: false,
    maxPayload: 1 << 28,
  })

  /**
   * @param largest Bytes of the longest message that it passes on.
   * @param words Whether it says 1009 for a longer one; else it just ends the connection.
   * @param upOnly Whether it limits only what is sent to the server.
   */
  constructor(port: number, largest: number, words: boolean, upOnly = false) {
    this.#server.on('connection', (near, { headers }) => {
      const { authorization } = headers
      const far = new WebSocket(`ws://127.0.0.1:${port}`, { headers: authorization ? { authorization } : {} })
      const waiting: Buffer[] = []
      const pass = (to: WebSocket) => (data: Buffer) => {
        if (data.length > largest && !(upOnly && to === near)) {
          for (const socket of [near, far]) {
            if (words) socket.close(1009)
            else socket.terminate()
          }
        } else if (to.readyState === WebSocket.CONNECTING) waiting.push(data)
        else if (to.readyState === WebSocket.OPEN) to.send(data)
      }
      near.on('message', pass(far))
      far.on('message', pass(near))
      far.on('open', () => waiting.forEach((data) => far.send(data)))
      for (const [from, to] of [
        [near, far],
        [far, near],
      ] as const) {
        from.on('error', () => to.terminate())
        from.on('close', (code) =>
          code >= 1000 && code <= 1011 && code !== 1005 && code !== 1006 ? to.close(code) : to.terminate(),
        )
      }
    })
  }

  /** Resolves with its port. */
  async listen(): Promise<number> {
    if (!this.#server.address()) await once(this.#server, 'listening')
    return (this.#server.address() as AddressInfo).port
  }

  close(): void {
    this.#server.clients.forEach((socket) => socket.terminate())
    this.#server.close()
  }
}
