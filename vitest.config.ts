import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['{apps,libs,test}/**/*.test.ts'],
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two cores: tests that start processes or engines of their own would only fight each other.
    maxWorkers: 2,
  },
})
