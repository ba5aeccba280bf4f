/** Numbers of other kinds than float32, as weights files have them. */

/** The kinds that become float32, and bytes of each; little-endian. */
const widths = { float32: 4, float16: 2, bfloat16: 2, float64: 8 } as const
export type FloatKind = keyof typeof widths

/** Bytes of one number. */
export const widthOf = (kind: FloatKind): number => widths[kind]

/** IEEE 754's half precision as float32's bits: exact. */
function widenHalf(half: number): number {
  const sign = (half & 0x8000) << 16
  const exponent = (half >> 10) & 31
  let fraction = half & 0x3ff
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13)
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13)
  if (fraction === 0) return sign
  // Below its normal numbers, which float32 has as normal ones.
  let shift = 113
  while ((fraction & 0x400) === 0) {
    fraction <<= 1
    shift--
  }
  return sign | (shift << 23) | ((fraction & 0x3ff) << 13)
}

/**
 * Little-endian numbers as float32: halves and bfloat16 exactly, float64 rounded to the nearest, float32 bit by bit.
 *
 * @param bytes As many as whole numbers need.
 */
export function toFloat32(bytes: Uint8Array, kind: FloatKind): Float32Array {
  const count = bytes.length / widths[kind]
  const values = new Float32Array(count)
  if (kind === 'float32') {
    new Uint8Array(values.buffer).set(bytes)
    return values
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  // As whole numbers: a float that is read and written may lose the bits of a NaN.
  const bits = new Uint32Array(values.buffer)
  for (let i = 0; i < count; i++) {
    if (kind === 'float64') values[i] = view.getFloat64(8 * i, true)
    else if (kind === 'float16') bits[i] = widenHalf(view.getUint16(2 * i, true))
    else bits[i] = view.getUint16(2 * i, true) << 16
  }
  return values
}
