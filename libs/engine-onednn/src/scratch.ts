import koffi from 'koffi'

const PAGE = 4096

/** Memory that plans use by turns, for all that none of them keeps from one run to the next. */
export class Scratch {
  #block: Uint8Array = new Uint8Array(0)

  /** At least so many bytes. They are the same as at the last call unless more are asked for. */
  take(size: number): Uint8Array {
    if (size > this.#block.length) this.#block = alignedBytes(size)
    return this.#block
  }
}

/** Zeroed memory that starts on a page, so that vectors never cross a cache line. */
export function alignedBytes(size: number): Uint8Array {
  const block = new Uint8Array(size + PAGE)
  const address = koffi.address(block)
  const skip = Number(-address & BigInt(PAGE - 1))
  return block.subarray(skip, skip + size)
}
