/** The arena's inner loops as a WebAssembly module, put together from its instructions. */
import {
  bytes,
  END,
  F64,
  F64_ADD,
  f32x4,
  f64x2,
  get,
  I32,
  loop,
  places,
  set,
  tee,
  unsigned,
  V128,
  v128,
  type Code,
} from './instructions.ts'
import { addProduct, TILES, tileName, type ProductKernel } from './products.ts'

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
  readonly columns: { readonly eight: ColumnKernels; readonly one: ColumnKernels }
  /** By height and width of their tiles. */
  readonly products: Readonly<Record<4 | 1, Readonly<Record<8 | 1, ProductKernel>>>>
}

/**
 * Work on some columns that stand side by side in a matrix of float32, from the first row to the last: `stride` bytes from one to
 * the next, the first place at `end` when all are done. What there is one of for each column is float64.
 */
export interface ColumnKernels {
  /** How many columns. */
  readonly width: number
  /** Σ x */
  sums(x: number, end: number, stride: number, sums: number): void
  /** Σ (x - center)² */
  squares(x: number, end: number, stride: number, center: number, squares: number): void
  /** Σ x and Σ x·(y - center) */
  products: (
    x: number,
    y: number,
    end: number,
    stride: number,
    center: number,
    sums: number,
    products: number,
  ) => void
  /** to ← a·x + c */
  line(x: number, to: number, end: number, stride: number, a: number, c: number): void
  /** to ← a·x + b·y + c */
  plane: (
    x: number,
    y: number,
    to: number,
    end: number,
    stride: number,
    a: number,
    b: number,
    c: number,
  ) => void
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

/** left[…] = left[…] + right[…] */
const add = [
  0,
  ...loop(
    [0, 1],
    2,
    bytes(64),
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
    bytes(64),
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
    bytes(64),
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
      bytes(32),
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

/** The kernels of a `ColumnKernels`: how many places and steps they are given, and the body. */
function columnKernels(width: 8 | 1): Record<Exclude<keyof ColumnKernels, 'width'>, readonly [number, Code]> {
  // Two columns share a local; one alone has the first half of it.
  const pairs = Array.from({ length: Math.ceil(width / 2) }, (_, pair) => pair)
  const load = (pair: number) => (width === 1 ? f64x2.loadOne : f64x2.load(8 * pair))
  const store = (pair: number) => [...f64x2.round, ...(width === 1 ? f64x2.storeOne : f64x2.store(8 * pair))]
  /** What the columns have at the place in local `from`, into four locals from `to` on. */
  const gather = (from: number, to: number) =>
    pairs.flatMap((pair) => [
      ...[...get(from), ...(width === 1 ? v128.loadHalf : v128.load(16 * pair)), ...set(to + pair)],
    ])
  const scatter = (from: number, to: number) =>
    pairs.flatMap((pair) => [
      ...[...get(to), ...get(from + pair), ...(width === 1 ? v128.storeHalf : v128.store(16 * pair))],
    ])
  return {
    // 4–7: the sums.
    sums: [
      4,
      [
        ...[1, 4, V128],
        ...loop(
          [0],
          1,
          get(2),
          pairs.flatMap((pair) => [
            ...[...get(0), ...load(pair), ...get(4 + pair), ...f64x2.add, ...set(4 + pair)],
          ]),
        ),
        ...scatter(4, 3),
        ...END,
      ],
    ],
    // 5–8: the sums; 9–12: the centers; 13: x - center.
    squares: [
      5,
      [
        ...[1, 9, V128],
        ...gather(3, 9),
        ...loop(
          [0],
          1,
          get(2),
          pairs.flatMap((pair) => [
            ...[...get(0), ...load(pair), ...get(9 + pair), ...f64x2.subtract, ...tee(13)],
            ...[...get(13), ...f64x2.multiply, ...get(5 + pair), ...f64x2.add, ...set(5 + pair)],
          ]),
        ),
        ...scatter(5, 4),
        ...END,
      ],
    ],
    // 7–10: the sums; 11–14: the products; 15–18: the centers; 19: x.
    products: [
      7,
      [
        ...[1, 13, V128],
        ...gather(4, 15),
        ...loop(
          [0, 1],
          2,
          get(3),
          pairs.flatMap((pair) => [
            ...[...get(0), ...load(pair), ...tee(19), ...get(7 + pair), ...f64x2.add, ...set(7 + pair)],
            ...[...get(1), ...load(pair), ...get(15 + pair), ...f64x2.subtract, ...get(19)],
            ...[...f64x2.multiply, ...get(11 + pair), ...f64x2.add, ...set(11 + pair)],
          ]),
        ),
        ...scatter(7, 5),
        ...scatter(11, 6),
        ...END,
      ],
    ],
    // 6–9: a; 10–13: c.
    line: [
      6,
      [
        ...[1, 8, V128],
        ...gather(4, 6),
        ...gather(5, 10),
        ...loop(
          [0, 1],
          2,
          get(3),
          pairs.flatMap((pair) => [
            ...[...get(1), ...get(0), ...load(pair), ...get(6 + pair), ...f64x2.multiply],
            ...[...get(10 + pair), ...f64x2.add, ...store(pair)],
          ]),
        ),
        ...END,
      ],
    ],
    // 8–11: a; 12–15: b; 16–19: c.
    plane: [
      8,
      [
        ...[1, 12, V128],
        ...[...gather(5, 8), ...gather(6, 12), ...gather(7, 16)],
        ...loop(
          [0, 1, 2],
          3,
          get(4),
          pairs.flatMap((pair) => [
            ...[...get(2), ...get(0), ...load(pair), ...get(8 + pair), ...f64x2.multiply],
            ...[...get(1), ...load(pair), ...get(12 + pair), ...f64x2.multiply, ...f64x2.add],
            ...[...get(16 + pair), ...f64x2.add, ...store(pair)],
          ]),
        ),
        ...END,
      ],
    ],
  }
}

const columns = (width: 8 | 1) =>
  Object.entries(columnKernels(width)).map(
    ([text, [count, body]]) => [`${text}${width}`, places(count), [], body] as const,
  )

/** What is exported: name, types of the parameters and of the result, and the body. */
const functions: readonly (readonly [name: string, parameters: Code, results: Code, body: Code])[] = [
  ['add', places(3), [], add],
  ['nonFinite', places(2), [I32], nonFinite],
  ['squares', places(2), [F64], squares],
  ['nesterov', [...places(4), F64, F64, F64, F64], [], update(true)],
  ['classical', [...places(4), F64, F64, F64, F64], [], update(false)],
  ...columns(8),
  ...columns(1),
  ...TILES.map(
    ([height, width]) => [tileName(height, width), places(9), [], addProduct(height, width)] as const,
  ),
]

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
    ...section(
      1,
      functions.map(([, from, to]) => [0x60, from.length, ...from, to.length, ...to]),
    ),
    ...section(
      3,
      functions.map((_, i) => [i]),
    ),
    ...section(5, [[0, 0]]),
    ...section(7, [exported('memory', 2, 0), ...functions.map(([text], i) => exported(text, 0, i))]),
    ...section(
      10,
      functions.map(([, , , body]) => [...unsigned(body.length), ...body]),
    ),
  ]),
)

/** A fresh memory, of no pages yet, with the kernels that work on it. */
export function instantiate(): { memory: Memory; kernels: Kernels } {
  const exports = new wasm.Instance(module).exports as Record<string, never> & { memory: Memory }
  const columns = (width: 8 | 1): ColumnKernels => ({
    width,
    sums: exports[`sums${width}`],
    squares: exports[`squares${width}`],
    products: exports[`products${width}`],
    line: exports[`line${width}`],
    plane: exports[`plane${width}`],
  })
  const products = (height: 4 | 1) => ({
    8: exports[tileName(height, 8)],
    1: exports[tileName(height, 1)],
  })
  return {
    memory: exports.memory,
    kernels: {
      ...(exports as unknown as Omit<Kernels, 'columns' | 'products'>),
      columns: { eight: columns(8), one: columns(1) },
      products: { 4: products(4), 1: products(1) },
    },
  }
}
