import { payloadOf, RESERVED, reserveFrame, sealFrame } from '@convoy/protocol'

/** One version of the parameters, in the form in which it is sent. Immutable while anyone holds it. */
export class ParameterFrame {
  readonly values: Float32Array
  step = -1
  /** The bytes to send. */
  bytes: Uint8Array = new Uint8Array()
  readonly #buffer: ArrayBuffer
  readonly #free: ParameterFrame[]
  #holders = 0

  constructor(size: number, free: ParameterFrame[]) {
    this.#buffer = reserveFrame(4 * size)
    this.values = payloadOf(this.#buffer)
    this.#free = free
  }

  /** Where the first `elements` values end in `bytes`. */
  static end(elements: number): number {
    return RESERVED + 4 * elements
  }

  /** Says after how many updates these values are. */
  seal(step: number): void {
    this.step = step
    this.bytes = sealFrame(this.#buffer, { kind: 'parameters', step }, this.values.byteLength)
  }

  retain(): void {
    this.#holders++
  }

  release(): void {
    if (--this.#holders === 0) this.#free.push(this)
  }
}

/**
 * The run's parameters. Each update writes a frame of its own, so that a slow worker that is still being
 * sent the old one can never see a mix of both. Frames are reused once nobody holds them.
 */
export class Parameters {
  readonly size: number
  current: ParameterFrame
  readonly #free: ParameterFrame[] = []

  constructor(initial: Float32Array, step: number) {
    this.size = initial.length
    this.current = this.#take()
    this.current.values.set(initial)
    this.current.seal(step)
    this.current.retain()
  }

  /** Makes the next version, whose values `fill` puts in. */
  advance(step: number, fill: (next: ParameterFrame) => void): void {
    const next = this.#take()
    next.seal(step)
    next.retain()
    fill(next)
    this.current.release()
    this.current = next
  }

  #take(): ParameterFrame {
    return this.#free.pop() ?? new ParameterFrame(this.size, this.#free)
  }
}
