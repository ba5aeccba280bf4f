import { ConvoyError } from '@convoy/errors'
import { Packr } from 'msgpackr'
import { crc32 } from 'node:zlib'

/**
 * A frame is one binary WebSocket message:
 *
 *     bytes 0–3   length of the header, uint32 little-endian
 *     bytes 4–7   where the payload starts, uint32 little-endian, a multiple of 8
 *     bytes 8–    the header, msgpack; then zeros up to the payload
 *     then        the payload: raw numbers, little-endian
 *     4 bytes     CRC-32 of all before, uint32 little-endian
 *
 * The sum at the end finds what a network or a machine's memory changed on the way, and can be worked out while the frame
 * is being sent.
 *
 * The payload's place is aligned and stands in front, so that a sender can compute straight into a frame it allocated
 * once, and a receiver can lay a typed array on what arrived. Neither copies.
 */

const PREFIX = 8
/** Bytes of the sum at the end. */
export const TRAILER = 4
/** Where the payload starts in a frame that was reserved before its header was known. */
export const RESERVED = 1024
/** Headers are small; a longer one is refused unread. */
export const MAX_HEADER = 1 << 20

const packr = new Packr({ useRecords: false, moreTypes: false, variableMapSize: true })

function malformed(what: string): ConvoyError {
  return new ConvoyError('E_MESSAGE', what, 'Use the same version of Convoy on both sides.')
}

/** How long a frame is that is reserved for so many bytes. */
export const reservedBytes = (payloadBytes: number) => RESERVED + payloadBytes + TRAILER

/** Bytes for a payload of `payloadBytes` with room for a header in front; see `payloadOf` and `sealFrame`. */
export function reserveFrame(payloadBytes: number): ArrayBuffer {
  return new ArrayBuffer(reservedBytes(payloadBytes))
}

/** The float32 payload of a reserved frame. */
export function payloadOf(
  frame: ArrayBuffer,
  length = Math.floor((frame.byteLength - RESERVED - TRAILER) / 4),
): Float32Array {
  return new Float32Array(frame, RESERVED, length)
}

/** Writes header and sum into a reserved frame and returns the bytes to send; the payload stays where it is. */
export function sealFrame(frame: ArrayBuffer, header: object, payloadBytes: number): Uint8Array {
  const bytes = openFrame(frame, header, payloadBytes)
  closeFrame(bytes, crc32(bytes.subarray(0, -TRAILER)))
  return bytes
}

/** As `sealFrame`, for a payload that is not complete yet; `closeFrame` writes the sum when it is. */
export function openFrame(frame: ArrayBuffer, header: object, payloadBytes: number): Uint8Array {
  const packed = packr.pack(header)
  if (packed.length > RESERVED - PREFIX) {
    throw new ConvoyError('E_INTERNAL', 'a header outgrew its reserved place', 'Please report this.')
  }
  const bytes = new Uint8Array(frame, 0, RESERVED + payloadBytes + TRAILER)
  writePrefix(bytes, packed, RESERVED)
  return bytes
}

/** Writes the CRC-32 of all before it at the end of a frame. */
export function closeFrame(bytes: Uint8Array, sum: number): void {
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(bytes.length - TRAILER, sum, true)
}

/** A whole frame from a header and payloads that are copied in, one behind another. For small messages. */
export function encodeFrame(header: object, ...payloads: readonly ArrayBufferView[]): Uint8Array {
  const packed = packr.pack(header)
  const start = (PREFIX + packed.length + 7) & ~7
  const bytes = new Uint8Array(payloads.reduce((sum, payload) => sum + payload.byteLength, start + TRAILER))
  writePrefix(bytes, packed, start)
  let at = start
  for (const payload of payloads) {
    bytes.set(new Uint8Array(payload.buffer, payload.byteOffset, payload.byteLength), at)
    at += payload.byteLength
  }
  closeFrame(bytes, crc32(bytes.subarray(0, -TRAILER)))
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

/**
 * Takes a frame apart; believes nothing. Throws E_FRAME where it was changed on its way, and E_MESSAGE.
 *
 * @param maxHeader Bytes that the header may have.
 */
export function decodeFrame(bytes: Uint8Array, maxHeader = MAX_HEADER): Frame {
  const end = bytes.byteLength - TRAILER
  if (end < PREFIX) throw malformed(`a message of ${bytes.byteLength} bytes is too short`)
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (crc32(bytes.subarray(0, end)) !== view.getUint32(end, true)) {
    throw new ConvoyError(
      'E_FRAME',
      'a message arrived damaged: its checksum does not match',
      'Check the network between the two machines; TLS finds such damage earlier.',
    )
  }
  const length = view.getUint32(0, true)
  const start = view.getUint32(4, true)
  if (length > maxHeader || PREFIX + length > start || start > end || start % 8 !== 0) {
    throw malformed('a message does not start with a Convoy header')
  }
  let header: unknown
  try {
    header = packr.unpack(bytes.subarray(PREFIX, PREFIX + length))
  } catch {
    throw malformed('the header of a message is not msgpack')
  }
  // Not `subarray`: on a Buffer that gives a Buffer, whose `slice` does not copy.
  const payload = new Uint8Array(bytes.buffer, bytes.byteOffset + start, end - start)
  return { header, payload: payload.byteOffset % 8 === 0 ? payload : payload.slice() }
}
