import { constants, open, type FileHandle } from 'node:fs/promises'

/** Bytes of lines that are kept while they cannot be written; beyond them the oldest are lost. */
const MOST_KEPT = 1 << 24
/** Bytes read at a time in search of the last line's end. */
const CHUNK = 1 << 16

/**
 * A file of JSON lines that grows at its end. What the disk refuses is kept and tried again with the next line, so that a
 * disk that was full for a while leaves no hole, and no line is ever torn: a half one is overwritten, here or by the next
 * process.
 */
export class LineFile {
  readonly #file: string
  readonly #failed: (message: string) => void
  #handle: FileHandle | undefined
  /** Where the last whole line ends. */
  #end = 0
  #lines: Buffer[] = []
  #kept = 0
  #lost = 0
  #failing = false
  #writing: Promise<Error | undefined> | undefined

  /** @param failed Told once when lines cannot be written, and again where some of them are lost. */
  constructor(file: string, failed: (message: string) => void) {
    this.#file = file
    this.#failed = failed
  }

  write(line: object): void {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`)
    this.#lines.push(bytes)
    this.#kept += bytes.length
    while (this.#kept > MOST_KEPT && this.#lines.length > 1) {
      this.#kept -= this.#lines.shift()!.length
      if (this.#lost++ === 0) this.#failed('lines are lost: too many could not be written')
    }
    void this.#start()
  }

  /** Resolves once every line is on the disk; rejects where the disk refuses. */
  async flush(): Promise<void> {
    do {
      const error = await this.#start()
      if (error) throw error
    } while (this.#lines.length > 0)
    await this.#handle?.datasync()
  }

  async close(): Promise<void> {
    await this.flush().catch(() => {})
    await this.#handle?.close()
  }

  #start(): Promise<Error | undefined> {
    return (this.#writing ??= this.#work().finally(() => {
      this.#writing = undefined
      // One may have come in the last moment.
      if (this.#lines.length > 0 && !this.#failing) void this.#start()
    }))
  }

  /** Writes all lines that there are; resolves with what stands in the way. */
  async #work(): Promise<Error | undefined> {
    try {
      this.#handle ??= await this.#open()
      while (this.#lines.length > 0) {
        const lines = new Set(this.#lines)
        const bytes = Buffer.concat([...lines])
        const { bytesWritten } = await this.#handle.write(bytes, 0, bytes.length, this.#end)
        if (bytesWritten < bytes.length) throw new Error('the disk took a part only')
        this.#end += bytes.length
        // Some may have been lost meanwhile, and others come.
        this.#lines = this.#lines.filter((line) => !lines.has(line))
        this.#kept = this.#lines.reduce((sum, { length }) => sum + length, 0)
      }
      this.#failing = false
      return undefined
    } catch (thrown) {
      const error = thrown as Error
      if (!this.#failing) this.#failed(error.message)
      this.#failing = true
      return error
    }
  }

  /** Opens the file and looks for the end of its last whole line. */
  async #open(): Promise<FileHandle> {
    const handle = await open(this.#file, constants.O_RDWR | constants.O_CREAT)
    let { size } = await handle.stat()
    const chunk = Buffer.alloc(CHUNK)
    for (let newline = -1; size > 0 && newline < 0;) {
      const from = Math.max(0, size - CHUNK)
      const { bytesRead } = await handle.read(chunk, 0, size - from, from)
      newline = chunk.subarray(0, bytesRead).lastIndexOf(10)
      size = from + newline + 1
    }
    await handle.truncate(size)
    this.#end = size
    return handle
  }
}
