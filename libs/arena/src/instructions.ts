/**
 * WebAssembly's instructions, as the bytes that they are in a module. SIMD is a part of every engine that runs Node.js 20.
 * Codes: https://webassembly.github.io/spec/core/appendix/index-instructions.html
 */

export const I32 = 0x7f
export const F64 = 0x7c
export const V128 = 0x7b

export const get = (local: number) => [0x20, local]
export const set = (local: number) => [0x21, local]
export const tee = (local: number) => [0x22, local]
export const END = [0x0b]

export const f32x4 = { add: [0xfd, 0xe4, 0x01], multiply: [0xfd, 0xe6, 0x01], notEqual: [0xfd, 0x42] }
export const f64x2 = {
  add: [0xfd, 0xf0, 0x01],
  subtract: [0xfd, 0xf1, 0x01],
  multiply: [0xfd, 0xf2, 0x01],
  splat: [0xfd, 0x14],
  lane: (index: number) => [0xfd, 0x21, index],
  /** Two float32 numbers as float64. */
  load: (offset: number) => [0xfd, 0x5d, 2, offset, 0xfd, 0x5f],
  /** One, beside 0. */
  loadOne: [0xfd, 0x5c, 2, 0, 0xfd, 0x5f],
  /** Rounded to float32, */
  round: [0xfd, 0x5e],
  /** and stored. */
  store: (offset: number) => [0xfd, 0x5b, 2, offset, 0],
  storeOne: [0xfd, 0x5a, 2, 0, 0],
}
export const v128 = {
  load: (offset: number) => [0xfd, 0x00, 2, offset],
  store: (offset: number) => [0xfd, 0x0b, 2, offset],
  /** Its first half, beside zeros. */
  loadHalf: [0xfd, 0x5d, 3, 0],
  storeHalf: [0xfd, 0x5b, 3, 0, 0],
  /** One float32 number, four times. */
  splatOne: [0xfd, 0x09, 2, 0],
  /** One, beside zeros. */
  loadOne: [0xfd, 0x5c, 2, 0],
  storeOne: [0xfd, 0x5a, 2, 0, 0],
  zero: [0xfd, 0x0c, ...new Array<number>(16).fill(0)],
  anyTrue: [0xfd, 0x53],
}
export const F64_ADD = [0xa0]
export const I32_ADD = [0x6a]
export const I32_MULTIPLY = [0x6c]

export function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]
}

/** In two's complement, for what is not negative. */
function signed(value: number): number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >> 7)]
}

export const bytes = (count: number) => [0x41, ...signed(count)]

/** local += step */
export const advance = (local: number, step: readonly number[]) => [
  ...[...get(local), ...step, ...I32_ADD, ...set(local)],
]

/** do { body; moving += step, … } while (the first of `moving` < local `end`) */
export function loop(
  moving: readonly number[],
  end: number,
  step: readonly number[],
  body: readonly number[],
): number[] {
  const [first, ...others] = moving
  return [
    ...[0x03, 0x40, ...body],
    ...others.flatMap((local) => advance(local, step)),
    ...[...get(first), ...step, ...I32_ADD, ...tee(first)],
    ...[...get(end), 0x49, 0x0d, 0, ...END],
  ]
}

export type Code = readonly number[]
export const places = (count: number) => new Array<number>(count).fill(I32)
