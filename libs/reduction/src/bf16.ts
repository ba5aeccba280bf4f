/** bfloat16: the upper half of a float32. Source: Intel, "BFLOAT16 – Hardware Numerics Definition", 2018. */

/** Rounds to the nearest bfloat16, ties to even; NaN stays NaN. */
export function roundToBf16(source: Float32Array, into: Uint16Array): Uint16Array {
  const bits = new Uint32Array(source.buffer, source.byteOffset, source.length)
  for (let i = 0; i < bits.length; i++) {
    const b = bits[i]
    into[i] = (b & 0x7fff_ffff) > 0x7f80_0000 ? (b >>> 16) | 0x40 : (b + 0x7fff + ((b >>> 16) & 1)) >>> 16
  }
  return into
}

/** The float32 numbers that bfloat16 numbers are. */
export function expandBf16(source: Uint16Array, into: Float32Array): Float32Array {
  const bits = new Uint32Array(into.buffer, into.byteOffset, source.length)
  for (let i = 0; i < source.length; i++) bits[i] = source[i] << 16
  return into
}
