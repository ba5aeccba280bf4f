/**
 * The arena's inner loops as a WebAssembly module, put together from its instructions: SIMD is a part of every engine
 * that runs Node.js 20. Codes: https://webassembly.github.io/spec/core/appendix/index-instructions.html
 */

export interface Memory {
  readonly buffer: ArrayBuffer
  grow(pages: number): number
}

type Update = (
  w: number,
  v: number,
  g: number,
  end: number,
  momentum: number,
  rate: number,
  scale: number,
  decay: number,
) => void

/** All places are in bytes; [at, end) is a whole number of blocks, 64 bytes (32 for updates), and not empty. */
export interface Kernels {
  /** Adds the blocks from `right` on to those of [left, end). */
  add(left: number, right: number, end: number): void
  /** Not 0 where [at, end) holds a NaN or an infinity. */
  nonFinite(at: number, end: number): number
  /** The sum of the squares. */
  squares(at: number, end: number): number
  nesterov: Update
  classical: Update
}

/** The part of WebAssembly that is used here; TypeScript has its types for browsers only. */
const wasm = (
  globalThis as unknown as {
    WebAssembly: {
      Module: new (bytes: Uint8Array) => object
      Instance: new (module: object) => { exports: unknown }
    }
  }
).WebAssembly

const I32 = 0x7f
const F64 = 0x7c
const V128 = 0x7b

const get = (local: number) => [0x20, local]
const set = (local: number) => [0x21, local]
const tee = (local: number) => [0x22, local]
const END = [0x0b]

const f32x4 = { add: [0xfd, 0xe4, 0x01], multiply: [0xfd, 0xe6, 0x01], notEqual: [0xfd, 0x42] }
const f64x2 = {
  add: [0xfd, 0xf0, 0x01],
  subtract: [0xfd, 0xf1, 0x01],
  multiply: [0xfd, 0xf2, 0x01],
  splat: [0xfd, 0x14],
  lane: (index: number) => [0xfd, 0x21, index],
  /** Two float32 numbers as float64. */
  load: (offset: number) => [0xfd, 0x5d, 2, offset, 0xfd, 0x5f],
  /** Rounded to float32, */
  round: [0xfd, 0x5e],
  /** and stored. */
  store: (offset: number) => [0xfd, 0x5b, 2, offset, 0],
}
const v128 = {
  load: (offset: number) => [0xfd, 0x00, 2, offset],
  store: (offset: number) => [0xfd, 0x0b, 2, offset],
  zero: [0xfd, 0x0c, ...new Array<number>(16).fill(0)],
  anyTrue: [0xfd, 0x53],
}
const F64_ADD = [0xa0]

/** do { body; moving += bytes, … } while (the first of `moving` < local `end`) */
function loop(moving: readonly number[], end: number, bytes: number, body: readonly number[]): number[] {
  const constant = [0x41, ...signed(bytes)]
  const [first, ...others] = moving
  return [
    ...[0x03, 0x40, ...body],
    ...others.flatMap((local) => [...get(local), ...constant, 0x6a, ...set(local)]),
    ...[...get(first), ...constant, 0x6a, ...tee(first)],
    ...[...get(end), 0x49, 0x0d, 0, ...END],
  ]
}

/** left[…] = left[…] + right[…] */
const add = [
  0,
  ...loop(
    [0, 1],
    2,
    64,
    [0, 16, 32, 48].flatMap((offset) => [
      ...[...get(0), ...get(0), ...v128.load(offset)],
      ...[...get(1), ...v128.load(offset), ...f32x4.add, ...v128.store(offset)],
    ]),
  ),
  ...END,
]

/** Sums x·0, which is 0 for every finite x and NaN for all others, and tells whether the sum is NaN. */
const nonFinite = [
  ...[1, 1, V128],
  ...loop(
    [0],
    1,
    64,
    [0, 16, 32, 48].flatMap((offset) => [
      ...[...get(0), ...v128.load(offset), ...v128.zero, ...f32x4.multiply],
      ...[...get(2), ...f32x4.add, ...set(2)],
    ]),
  ),
  ...[...get(2), ...get(2), ...f32x4.notEqual, ...v128.anyTrue],
  ...END,
]

/** Locals 2 and 3 hold two sums each; local 4 is x. */
const squares = [
  ...[1, 3, V128],
  ...loop(
    [0],
    1,
    64,
    [0, 8, 16, 24, 32, 40, 48, 56].flatMap((offset) => {
      const sum = 2 + ((offset / 8) % 2)
      return [
        ...[...get(0), ...f64x2.load(offset), ...tee(4), ...get(4), ...f64x2.multiply],
        ...[...get(sum), ...f64x2.add, ...set(sum)],
      ]
    }),
  ),
  ...[
    ...get(2),
    ...get(3),
    ...f64x2.add,
    ...tee(4),
    ...f64x2.lane(0),
    ...get(4),
    ...f64x2.lane(1),
    ...F64_ADD,
  ],
  ...END,
]

/** Parameters 0–3: w, v, g, end; 4–7: μ, η, scale, decay, which locals 8–11 hold twice; 12: w, 13: push, 14: v. */
function update(nesterov: boolean): number[] {
  return [
    ...[1, 7, V128],
    ...[4, 5, 6, 7].flatMap((local) => [...get(local), ...f64x2.splat, ...set(local + 4)]),
    ...loop(
      [0, 1, 2],
      3,
      32,
      [0, 8, 16, 24].flatMap((offset) => [
        // push = η·(g·scale + decay·w)
        ...[...get(9), ...get(2), ...f64x2.load(offset), ...get(10), ...f64x2.multiply],
        ...[...get(11), ...get(0), ...f64x2.load(offset), ...tee(12), ...f64x2.multiply, ...f64x2.add],
        ...[...f64x2.multiply, ...set(13)],
        // v = μ·v - push, as it is stored
        ...[...get(8), ...get(1), ...f64x2.load(offset), ...f64x2.multiply, ...get(13), ...f64x2.subtract],
        ...[...f64x2.round, ...set(14), ...get(1), ...get(14), ...f64x2.store(offset)],
        // w = w + μ·v - push, or w + v
        ...[...get(0), ...get(12), ...get(14), 0xfd, 0x5f],
        ...(nesterov
          ? [...get(8), ...f64x2.multiply, ...f64x2.add, ...get(13), ...f64x2.subtract]
          : f64x2.add),
        ...[...f64x2.round, ...f64x2.store(offset)],
      ]),
    ),
    ...END,
  ]
}

function unsigned(value: number): number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...unsigned(value >>> 7)]
}

function signed(value: number): number[] {
  return value < 0x40 ? [value] : [(value & 0x7f) | 0x80, ...signed(value >> 7)]
}

function section(id: number, items: readonly (readonly number[])[]): number[] {
  const body = [...unsigned(items.length), ...items.flat()]
  return [id, ...unsigned(body.length), ...body]
}

const name = (text: string) => [text.length, ...Buffer.from(text)]
const exported = (text: string, kind: number, index: number) => [...name(text), kind, index]

const module = new wasm.Module(
  Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    // Types, functions by type, one memory, exports, bodies.
    ...section(1, [
      [0x60, 3, I32, I32, I32, 0],
      [0x60, 2, I32, I32, 1, I32],
      [0x60, 2, I32, I32, 1, F64],
      [0x60, 8, I32, I32, I32, I32, F64, F64, F64, F64, 0],
    ]),
    ...section(3, [[0], [1], [2], [3], [3]]),
    ...section(5, [[0, 0]]),
    ...section(7, [
      exported('memory', 2, 0),
      ...['add', 'nonFinite', 'squares', 'nesterov', 'classical'].map((text, i) => exported(text, 0, i)),
    ]),
    ...section(
      10,
      [add, nonFinite, squares, update(true), update(false)].map((body) => [
        ...unsigned(body.length),
        ...body,
      ]),
    ),
  ]),
)

/** A fresh memory, of no pages yet, with the kernels that work on it. */
export function instantiate(): { memory: Memory; kernels: Kernels } {
  const exports = new wasm.Instance(module).exports as Kernels & { memory: Memory }
  return { memory: exports.memory, kernels: exports }
}
