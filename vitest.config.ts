import { configDefaults, defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

const cluster = 'test/containers/cluster.test.ts'
const kubernetes = 'test/kubernetes/**/*.test.ts'

/** What takes longest begins first, so that short files fill what is left at the end. */
const longest = [/\/test\/containers\//, /\/test\//, /\/libs\/engine/]

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const found = longest.findIndex((path) => path.test(moduleId))
      return found < 0 ? longest.length : found
    }
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    testTimeout: 120_000,
    hookTimeout: 120_000,
    // Twice the two cores of the smallest machine: tests that start processes wait for most of their time.
    maxWorkers: 4,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'processes',
          include: ['{apps,libs,test}/**/*.test.ts'],
          exclude: [...configDefaults.exclude, cluster, kubernetes],
        },
      },
      // A cluster of containers takes the whole machine, so it has it alone, after the others.
      {
        extends: true,
        test: { name: 'containers', include: [cluster], sequence: { groupOrder: 1 } },
      },
      {
        extends: true,
        test: { name: 'kubernetes', include: [kubernetes], sequence: { groupOrder: 2 } },
      },
    ],
  },
})
