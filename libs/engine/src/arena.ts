/**
 * Places buffers of a plan in one block of memory. Buffers whose lifetimes do not overlap share bytes: a buffer is placed,
 * largest first, at the lowest offset where no buffer that is alive at the same time lies.
 */

/** A buffer, alive from step `first` to step `last` of a plan, both included. */
export interface Buffer {
  readonly bytes: number
  first: number
  last: number
  offset: number
}

export class Arena {
  readonly #buffers: Buffer[] = []
  readonly #alignment: number

  /** @param alignment Of each buffer, in bytes. */
  constructor(alignment: number) {
    this.#alignment = alignment
  }

  /** Asks for a buffer; it is alive nowhere until `touch`. */
  reserve(bytes: number): Buffer {
    const buffer = { bytes, first: Infinity, last: -Infinity, offset: -1 }
    this.#buffers.push(buffer)
    return buffer
  }

  /** Says that a buffer holds something that matters during `step`. */
  touch(buffer: Buffer, step: number): void {
    buffer.first = Math.min(buffer.first, step)
    buffer.last = Math.max(buffer.last, step)
  }

  /** Says that a buffer lives for ever. */
  keep(buffer: Buffer): void {
    buffer.first = -Infinity
    buffer.last = Infinity
  }

  /** Places the buffers of a block, all where none are named. Returns the block's size in bytes. */
  place(belongs: (buffer: Buffer) => boolean = () => true): number {
    const placed: Buffer[] = []
    let size = 0
    for (const buffer of this.#buffers.filter(belongs).sort((a, b) => b.bytes - a.bytes)) {
      const neighbours = placed
        .filter((other) => other.first <= buffer.last && buffer.first <= other.last)
        .sort((a, b) => a.offset - b.offset)
      let offset = 0
      for (const other of neighbours) {
        if (offset + buffer.bytes <= other.offset) break
        offset = Math.max(offset, align(other.offset + other.bytes, this.#alignment))
      }
      buffer.offset = offset
      placed.push(buffer)
      size = Math.max(size, offset + buffer.bytes)
    }
    return size
  }
}

/** Whether a buffer lives for ever. */
export const isKept = (buffer: Buffer): boolean => buffer.last === Infinity

function align(n: number, to: number): number {
  return Math.ceil(n / to) * to
}
