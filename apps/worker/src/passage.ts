import { ConvoyError } from '@convoy/errors'

/** What is shorter than this, in bytes, passes every proxy. */
const SMALL = 1 << 15
/** Breaks in a row at the same place that are no accident. */
const NO_ACCIDENT = 2
/** RFC 6455: a message is too big to be processed. */
const TOO_BIG = 1009

/**
 * Whether large messages get through: parameters one way, gradients the other. A proxy that limits messages ends the
 * connection at the first one that is too long for it, and does so again on every new one.
 */
export class Passage {
  /** Bytes of the message that is to get through next; undefined where none is. */
  #next: number | undefined
  #sent = false
  #breaks = 0

  /** A connection was let in: parameters of so many bytes come next. */
  joined(bytes: number): void {
    this.#next = bytes
    this.#sent = false
  }

  /** Parameters came; what was sent before them got through as well. */
  heard(): void {
    if (this.#sent) this.#breaks = 0
    this.#next = undefined
  }

  /** A message of so many bytes is sent. */
  sent(bytes: number): void {
    this.#sent = true
    this.#next = bytes
  }

  /** Whether connections break again and again before the next large message got through. */
  get blocked(): boolean {
    return this.#breaks >= NO_ACCIDENT
  }

  /**
   * A connection ended. Throws E_TOO_LARGE where whatever ended it says that a message was too long for it.
   *
   * @param code The WebSocket's close code.
   */
  broke(code: number): void {
    if (code === TOO_BIG) throw this.error()
    if (this.#next !== undefined && this.#next > SMALL) this.#breaks++
  }

  /** What is wrong, and what to do. */
  error(): ConvoyError {
    const size = this.#next === undefined ? '' : ` of ${(this.#next / 1e6).toFixed(1)} MB`
    return new ConvoyError(
      'E_TOO_LARGE',
      `something between here and the coordinator seems not to let messages${size} through`,
      'Raise the limit of WebSocket messages in the proxy or gateway, or go around it.',
    )
  }
}
