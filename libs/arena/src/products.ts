import {
  advance,
  bytes,
  END,
  f32x4,
  get,
  I32,
  I32_ADD,
  I32_MULTIPLY,
  loop,
  set,
  V128,
  v128,
} from './instructions.ts'

/**
 * c ← c + a·b in float32 for the rows [a, aEnd) of a, a whole number of tiles and not none, and as many columns of b as a tile has.
 * The products of a number of c are added one after another in the order of b's rows, whatever the tile. All is in bytes: a number of a
 * is `aRow` behind the one above it and `aStep` behind the one to its left; a row of b is `bStep` behind the one above it, and `bEnd`
 * is where the first that is left out is; a row of c is `cRow` behind the one above it.
 */
export type ProductKernel = (
  a: number,
  aEnd: number,
  aRow: number,
  aStep: number,
  b: number,
  bEnd: number,
  bStep: number,
  c: number,
  cRow: number,
) => void

/** Height and width of the tiles of c that are held in registers; those of 1 are for the rests. */
export const TILES = [
  [4, 8],
  [4, 1],
  [1, 8],
  [1, 1],
] as const

export const tileName = (height: number, width: number) => `product${height}x${width}`

/** The body of a `ProductKernel`, whose parameters are the locals 0–8. */
export function addProduct(height: 4 | 1, width: 8 | 1): number[] {
  const [a, aEnd, aRow, aStep, b, bEnd, bStep, c, cRow] = Array.from({ length: 9 }, (_, local) => local)
  // Four numbers share a local; one alone is the first in it.
  const vectors = Array.from({ length: Math.ceil(width / 4) }, (_, vector) => vector)
  const load = (vector: number) => (width === 1 ? v128.loadOne : v128.load(16 * vector))
  const store = (vector: number) => (width === 1 ? v128.storeOne : v128.store(16 * vector))
  const rows = Array.from({ length: height }, (_, row) => row)
  let locals = 9
  const take = () => locals++
  // Where it is in a, b and c, and how far a row of a is behind the tile's first.
  const [aAt, bAt, cAt, tile] = [take(), take(), take(), take()]
  const below = rows.map(take)
  const places = locals - 9
  const sums = rows.map(() => vectors.map(take))
  const right = vectors.map(take)
  const left = take()
  return [
    ...[2, places, I32, locals - 9 - places, V128],
    ...rows.flatMap((row) => [...get(aRow), ...bytes(row), ...I32_MULTIPLY, ...set(below[row])]),
    ...[...get(aRow), ...bytes(height), ...I32_MULTIPLY, ...set(tile)],
    ...loop([a], aEnd, get(tile), [
      ...[...get(c), ...set(cAt)],
      ...rows.flatMap((row) => [
        ...vectors.flatMap((vector) => [...get(cAt), ...load(vector), ...set(sums[row][vector])]),
        ...advance(cAt, get(cRow)),
      ]),
      ...[...get(a), ...set(aAt), ...get(b), ...set(bAt)],
      ...loop([bAt], bEnd, get(bStep), [
        ...vectors.flatMap((vector) => [...get(bAt), ...load(vector), ...set(right[vector])]),
        ...rows.flatMap((row) => [
          ...[...get(aAt), ...get(below[row]), ...I32_ADD, ...v128.splatOne, ...set(left)],
          ...vectors.flatMap((vector) => [
            ...[...get(sums[row][vector]), ...get(left), ...get(right[vector]), ...f32x4.multiply],
            ...[...f32x4.add, ...set(sums[row][vector])],
          ]),
        ]),
        ...advance(aAt, get(aStep)),
      ]),
      ...rows.flatMap((row) => [
        ...vectors.flatMap((vector) => [...get(c), ...get(sums[row][vector]), ...store(vector)]),
        ...advance(c, get(cRow)),
      ]),
    ]),
    ...END,
  ]
}
