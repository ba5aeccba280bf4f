import { createServer, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

/** A server that gives files whole or from where a fetch stopped, and can break off. */
export class FileServer {
  /** The path of each request for a file, and the range that it asks for. */
  readonly asked: string[] = []
  /** How many bytes of a file are sent before the connection is cut. */
  cut = Infinity
  readonly #server: Server

  /** @param find What is at an address: a file's bytes, or the text of a page, which is given whole. */
  constructor(find: (address: string, request: IncomingMessage) => Uint8Array | string) {
    this.#server = createServer((request, response) => {
      const bytes = find(request.url!, request)
      if (typeof bytes === 'string') return response.end(bytes)
      const { range } = request.headers
      this.asked.push(`${request.url} ${range ?? ''}`.trim())
      const from = Number(/\d+/.exec(range ?? '0')![0])
      response.writeHead(range ? 206 : 200, { 'content-length': bytes.length - from })
      response.write(bytes.subarray(from, this.cut), () => {
        // What was sent shall come first.
        if (this.cut < bytes.length) setTimeout(() => response.destroy(), 1_000)
        else response.end()
      })
    })
  }

  /** Starts; resolves with its address, without a slash at its end. */
  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  close(): void {
    this.#server.closeAllConnections()
    this.#server.close()
  }
}
