import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

// What goes wrong elsewhere where a set is smaller than a batch, its last batch is one image, or a short run learns nothing.

const { folder, remove } = scratch()
afterAll(remove)

const train = (...args: string[]) =>
  new Convoy([
    ...['train', '--data', 'synthetic', '--limit-test', '20', '--width', '0.0625', '--evaluate-every', '0'],
    ...['--runs', folder, '--port', '0', '--json', ...args],
  ])

describe('a small set', () => {
  it.each([
    ['smaller than a batch', ['--limit-train', '60', '--batch-size', '128'], 3],
    ['with a last batch of one', ['--limit-train', '65', '--batch-size', '64', '--micro-batch', '8'], 6],
  ])('%s is trained on whole each epoch, with the same bits for 1 and 3 workers', async (_, args, step) => {
    const hashes: unknown[] = []
    for (const workers of ['1', '3']) {
      const run = train(...args, '--epochs', '3', '--workers', workers)
      expect(await run.done()).toMatchObject({ step, epoch: 3, finished: true })
      const images = Number(args[1])
      const epochs = run.lines.filter(({ event }) => event === 'epoch')
      expect(epochs.map(({ samples, exactlyOnce }) => [samples, exactlyOnce])).toEqual(
        epochs.map(() => [images, images]),
      )
      const losses = epochs.map(({ trainLoss }) => Number(trainLoss))
      expect(losses.every((loss) => loss > 0)).toBe(true)
      expect(new Set(losses).size).toBe(3)
      hashes.push(run.event('done')?.['parametersSha256'])
    }
    expect(hashes[1]).toBe(hashes[0])
  })

  it('on which a run ends at the cost of guessing is told so', async () => {
    // 5,400 samples: too few for a verdict while it runs.
    const run = train('--limit-train', '450', '--epochs', '12', '--learning-rate', '1e-7', '--workers', '1')
    await run.done()
    const verdicts = run.lines.filter(({ event }) => event === 'verdict')
    expect(verdicts).toHaveLength(1)
    expect(verdicts[0]).toMatchObject({
      verdict: 'notLearning',
      reason: expect.stringMatching(/no better than guessing \(2\.3\): train longer/) as string,
    })
  })
})
