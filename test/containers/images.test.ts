import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { buildImage, findEngine } from './engine.ts'

const { engine, reason } = await findEngine()

// Beside the tests that come first: what is built here, from the base image on, is found by the cluster that comes last.
describe.skipIf(reason)(`the images${reason ? ` (skipped: ${reason})` : ''}`, () => {
  const images: string[] = []
  beforeAll(() => {
    for (const target of ['coordinator', 'worker'] as const) images.push(buildImage(engine!, target))
  }, 900_000)
  afterAll(() => engine?.close())

  it('are small, and hold no build tools', () => {
    for (const image of images) {
      const size = Number(engine!.run('image', 'inspect', '-f', '{{.Size}}', image)) / 1e6
      console.log(`${image}: ${size.toFixed(0)} MB`)
      expect(size).toBeLessThan(350)
      const found = engine!.run(
        ...['run', '--rm', '--network', 'none', '--entrypoint', 'sh', image, '-c'],
        'id -u; command -v npm npx corepack gcc g++ make python3 git; true',
      )
      expect(found).toBe('1000\n')
    }
  })
})
