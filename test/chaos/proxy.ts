import { connect, createServer, type AddressInfo, type Socket } from 'node:net'

/** What befalls the bytes of a connection. */
export type LineFault = 'drop' | 'delay' | 'truncate' | 'corrupt' | 'halfOpen'

/** A line between a worker and its coordinator that can be made to fail. */
export class Proxy {
  readonly #server
  readonly #pairs = new Set<{ near: Socket; far: Socket }>()
  #delayUntil = 0
  #corrupt = false
  #truncate = false
  #deaf = false

  /** @param target The coordinator's port. */
  constructor(target: number) {
    this.#server = createServer((near) => {
      const far = connect(target, '127.0.0.1')
      const pair = { near, far }
      this.#pairs.add(pair)
      const end = () => {
        near.destroy()
        far.destroy()
        this.#pairs.delete(pair)
      }
      for (const [from, to] of [
        [near, far],
        [far, near],
      ]) {
        from.on('data', (chunk: Buffer) => this.#carry(chunk, from, to, end))
        from.on('error', end)
        from.on('close', end)
      }
    })
  }

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    return (this.#server.address() as AddressInfo).port
  }

  #carry(chunk: Buffer, from: Socket, to: Socket, end: () => void): void {
    if (this.#deaf) return
    if (this.#truncate && chunk.length > 1_000) {
      this.#truncate = false
      to.write(chunk.subarray(0, chunk.length >> 1), end)
      return
    }
    // Of a large piece, which is the middle of a gradient or of parameters.
    if (this.#corrupt && chunk.length > 10_000) {
      this.#corrupt = false
      chunk[chunk.length >> 1] ^= 4
    }
    const wait = this.#delayUntil - Date.now()
    if (wait > 0) {
      from.pause()
      setTimeout(() => {
        if (!to.destroyed) to.write(chunk)
        from.resume()
      }, wait)
    } else to.write(chunk)
  }

  fault(kind: LineFault, duration: number): void {
    switch (kind) {
      case 'drop':
        return this.#cut()
      case 'delay':
        this.#delayUntil = Date.now() + duration
        return
      case 'truncate':
        this.#truncate = true
        return
      case 'corrupt':
        this.#corrupt = true
        return
      case 'halfOpen':
        // Bytes are taken and lead nowhere; in the end the line is cut.
        this.#deaf = true
        setTimeout(() => {
          this.#deaf = false
          this.#cut()
        }, duration).unref()
    }
  }

  #cut(): void {
    for (const { near, far } of this.#pairs) {
      near.destroy()
      far.destroy()
    }
    this.#pairs.clear()
  }

  close(): void {
    this.#cut()
    this.#server.close()
  }
}
