/** Settings that both ends of a connection share. */
export const socketOptions = {
  // Gradients do not compress, and compression would cost more than the wire.
  perMessageDeflate: false,
  skipUTF8Validation: true,
} as const

/** How often either side says that it lives, in milliseconds. */
export const HEARTBEAT = 5_000
/** Silence after which the other side is taken for dead, in milliseconds. */
export const SILENCE = 20_000

/**
 * A WebSocket client must mask what it sends so that confused proxies do not act on it. A mask of zeros keeps the form,
 * and `ws` then spares itself a pass over every byte on both ends.
 */
export function noMask(mask: Buffer): void {
  mask.fill(0)
}
