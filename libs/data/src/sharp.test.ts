import { describe, expect, it, vi } from 'vitest'
import { loadSharp } from './sharp.ts'

vi.mock('sharp', () => {
  throw new Error('Could not load the "sharp" module using the linux-arm64 runtime\nPossible solutions: …')
})

describe('loadSharp', () => {
  it('says what to install where the binary for this system is missing', async () => {
    await expect(loadSharp()).rejects.toMatchObject({
      code: 'E_SETUP',
      message: expect.stringMatching(
        /sharp, which decodes images, cannot be loaded on \w+ \w+: [^\n]+$/,
      ) as string,
      remedy: expect.stringContaining('npm ci') as string,
    })
  })
})
