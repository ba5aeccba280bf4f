import { describe, expect, it } from 'vitest'
import { patchCovariance, patchStatistics } from './patches.ts'
import { synthetic } from './synthetic.ts'
import { prepare, type Prepared } from './whiten.ts'

const prepared: Prepared = await prepare(synthetic(1, 60, 10, 32, 'here'), 'channels', {})
const options = { kernel: [3, 3], size: 16, seed: 1, images: 40 } as const

describe('patchCovariance', () => {
  it('is that of all patches', () => {
    // Two images of 4×4 pixels, whose patches of 3×3 are four each; bytes as they are.
    const numbers = Uint8Array.from({ length: 32 }, (_, i) => (i * i * 37) % 256)
    const split = { count: 2, labels: Int32Array.of(0, 0), pixels: numbers }
    const dataset = { ...prepared.dataset, shape: [4, 4, 1] as const, train: split }
    const patches: number[][] = []
    for (const image of [0, 16]) {
      for (const corner of [0, 1, 4, 5])
        patches.push([0, 1, 2, 4, 5, 6, 8, 9, 10].map((at) => numbers[image + corner + at]))
    }
    const mean = (of: (patch: number[]) => number) => patches.reduce((sum, patch) => sum + of(patch), 0) / 8
    const covariance = patchCovariance(
      { dataset, preprocessing: { kind: 'none' } },
      { kernel: [3, 3], size: 4, seed: 1 },
    )
    for (let i = 0; i < 9; i++) {
      for (let j = 0; j < 9; j++) {
        const expected =
          mean((patch) => patch[i] * patch[j]) - mean((patch) => patch[i]) * mean((patch) => patch[j])
        expect(covariance[i][j]).toBeCloseTo(expected, 8)
      }
    }
  })
})

describe('patchStatistics', () => {
  it('diagonalises the covariance, from the largest eigenvalue on', async () => {
    const covariance = patchCovariance(prepared, options)
    const { eigenvalues, eigenvectors } = await patchStatistics(prepared, options)
    expect(eigenvectors).toHaveLength(27)
    eigenvectors.forEach((a, i) => {
      const projected = covariance.map((row) => row.reduce((sum, value, k) => sum + value * a[k], 0))
      eigenvectors.forEach((b, j) => {
        expect(a.reduce((sum, value, k) => sum + value * b[k], 0)).toBeCloseTo(i === j ? 1 : 0, 10)
        expect(projected.reduce((sum, value, k) => sum + value * b[k], 0)).toBeCloseTo(
          i === j ? eigenvalues[i] : 0,
          10,
        )
      })
    })
    expect([...eigenvalues]).toEqual([...eigenvalues].sort((a, b) => b - a))
    expect(eigenvalues[26]).toBeGreaterThanOrEqual(0)
  })

  it('fixes the signs, so that repeating it gives the same bits', async () => {
    const { eigenvectors } = await patchStatistics(prepared, options)
    for (const vector of eigenvectors) expect(Math.max(...vector)).toBe(Math.max(...vector.map(Math.abs)))
    expect(await patchStatistics(prepared, options)).toEqual(await patchStatistics(prepared, options))
  })

  it('depends on the size and on the images that are drawn', async () => {
    const first = async (changes: Partial<{ size: number; seed: number; kernel: [number, number] }>) =>
      (await patchStatistics(prepared, { ...options, ...changes })).eigenvalues
    const base = await first({})
    expect(await first({ size: 32 })).not.toEqual(base)
    expect(await first({ seed: 2 })).not.toEqual(base)
    expect(await first({ kernel: [5, 5] })).toHaveLength(75)
  })
})
