import { ConvoyError } from '@convoy/errors'
import { Packr } from 'msgpackr'

/**
 * A frame is one binary WebSocket message:
 *
 *     bytes 0–3   length of the header, uint32 little-endian
 *     bytes 4–7   where the payload starts, uint32 little-endian, a multiple of 8
 *     bytes 8–    the header, msgpack; then zeros up to the payload
 *     the rest    the payload: raw numbers, little-endian
 *
 * The payload's place is aligned and stands in front, so that a sender can compute straight into a frame it allocated
 * once, and a receiver can lay a typed array on what arrived. Neither copies.
 */

const PREFIX = 8
/** Where the payload starts in a frame that was reserved before its header was known. */
export const RESERVED = 1024
/** Headers are small; a longer one is refused unread. */
export const MAX_HEADER = 1 << 20

const packr = new Packr({ useRecords: false, moreTypes: false, variableMapSize: true })

function malformed(what: string): ConvoyError {
  return new ConvoyError('E_MESSAGE', what, 'Use the same version of Convoy on both sides.')
}

/** Bytes for a payload of `payloadBytes` with room for a header in front; see `payloadOf` and `sealFrame`. */
export function reserveFrame(payloadBytes: number): ArrayBuffer {
  return new ArrayBuffer(RESERVED + payloadBytes)
}

/** The float32 payload of a reserved frame. */
export function payloadOf(frame: ArrayBuffer, length?: number): Float32Array {
  return new Float32Array(frame, RESERVED, length)
}

/** Writes the header into a reserved frame and returns the bytes to send; the payload stays where it is. */
export function sealFrame(frame: ArrayBuffer, header: object, payloadBytes: number): Uint8Array {
  const packed = packr.pack(header)
  if (packed.length > RESERVED - PREFIX) {
    throw new ConvoyError('E_INTERNAL', 'a header outgrew its reserved place', 'Please report this.')
  }
  const bytes = new Uint8Array(frame, 0, RESERVED + payloadBytes)
  writePrefix(bytes, packed, RESERVED)
  return bytes
}

/** A whole frame from a header and payloads that are copied in, one behind another. For small messages. */
export function encodeFrame(header: object, ...payloads: readonly ArrayBufferView[]): Uint8Array {
  const packed = packr.pack(header)
  const start = (PREFIX + packed.length + 7) & ~7
  const bytes = new Uint8Array(payloads.reduce((sum, payload) => sum + payload.byteLength, start))
  writePrefix(bytes, packed, start)
  let at = start
  for (const payload of payloads) {
    bytes.set(new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength), at)
    at += payload.byteLength
  }
  return bytes
}

function writePrefix(bytes: Uint8Array, packed: Uint8Array, start: number): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  view.setUint32(0, packed.length, true)
  view.setUint32(4, start, true)
  bytes.set(packed, PREFIX)
}

/** A frame taken apart. The payload is a view on the frame, aligned to 8 bytes (copied only where it was not). */
export interface Frame {
  readonly header: unknown
  readonly payload: Uint8Array
}

/** Takes a frame apart; believes nothing. Throws E_MESSAGE. */
export function decodeFrame(bytes: Uint8Array): Frame {
  if (bytes.byteLength < PREFIX) throw malformed(`a message of ${bytes.byteLength} bytes is too short`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const length = view.getUint32(0, true)
  const start = view.getUint32(4, true)
  if (length > MAX_HEADER || PREFIX + length > start || start > bytes.byteLength || start % 8 !== 0) {
    throw malformed('a message does not start with a Convoy header')
  }
  let header: unknown
  try {
    header = packr.unpack(bytes.subarray(PREFIX, PREFIX + length))
  } catch {
    throw malformed('the header of a message is not msgpack')
  }
  // Not `subarray`: on a Buffer that gives a Buffer, whose `slice` does not copy.
  const payload = new Uint8Array(bytes.buffer, bytes.byteOffset + start, bytes.byteLength - start)
  return { header, payload: payload.byteOffset % 8 === 0 ? payload : payload.slice() }
}
