import { configDefaults, defineConfig } from 'vitest/config'

const containers = 'test/containers/**'

export default defineConfig({
  test: {
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Two cores: tests that start processes or engines of their own would only fight each other.
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: 'processes',
          include: ['{apps,libs,test}/**/*.test.ts'],
          exclude: [...configDefaults.exclude, containers],
        },
      },
      // A cluster of containers takes the whole machine, so it has it alone, after the others.
      {
        extends: true,
        test: { name: 'containers', include: [`${containers}/*.test.ts`], sequence: { groupOrder: 1 } },
      },
    ],
  },
})
