import fc from 'fast-check'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { check } from 'prettier'
import { describe, expect, it } from 'vitest'
import { root } from './convoy.ts'
import { answers } from './figures/answers.ts'
import { allFigures, figures, page, readme, table } from './figures/figures.ts'

const read = (name: string) => readFileSync(path.join(root, name), 'utf8')
const conditions = {
  title: 't',
  intro: 'i',
  command: 'c',
  machine: 'm',
  date: '2026-11-25',
  commit: 'f5ffc4f',
}

describe('the figures', () => {
  it('stand in docs/figures.md and README.md as `npm run figures` writes them from docs/figures', async () => {
    const all = allFigures()
    expect(read('docs/figures.md'), 'run npm run figures').toBe(await page(all))
    expect(read('README.md'), 'run npm run figures').toBe(await readme(read('README.md'), all))
  })

  it('answer each question once', () => {
    const all = allFigures()
    const repeated = (keys: string[]) => keys.filter((key, i) => keys.indexOf(key) !== i)
    expect(repeated(all.map(({ title }) => title))).toEqual([])
    expect(repeated(all.flatMap(({ rows, title }) => rows.map(([what]) => `${title}: ${what}`)))).toEqual([])
    expect(repeated(all.flatMap(({ readme = [] }) => readme.map(({ what }) => what)))).toEqual([])
    // What one command prints on one machine.
    const runs = all.filter(({ command }) => command !== 'by hand')
    expect(repeated(runs.map(({ command, machine }) => `${command} on ${machine}`))).toEqual([])
  })

  it('name machine, date, commit and command, and have a cell for each column', () => {
    const good = { ...conditions, columns: ['a', 'b'], rows: [['1', '2']] }
    expect(figures.safeParse(good).success).toBe(true)
    for (const field of ['machine', 'date', 'commit', 'command'])
      expect(figures.safeParse({ ...good, [field]: undefined }).success, field).toBe(false)
    expect(figures.safeParse({ ...good, date: 'yesterday' }).success).toBe(false)
    expect(figures.safeParse({ ...good, rows: [['1']] }).success).toBe(false)
  })

  it('replace what stands between the comments of README.md, and refuse one without them', async () => {
    const one = {
      ...conditions,
      columns: ['a', 'b'],
      rows: [['1', '2']],
      readme: [{ what: 'w', figure: 'f' }],
    }
    const written = await readme('before\n\n<!-- figures -->\nold\n<!-- /figures -->\n\nafter\n', [one])
    expect(written).toMatch(
      /^before\n\n<!-- figures -->\n\n\| what [^]*\| w +\| f +\| m +\| `c` +\|\n\n<!-- \/figures -->\n\nafter\n$/,
    )
    expect(await readme(written, [one])).toBe(written)
    expect(await check(written, { parser: 'markdown' })).toBe(true)
    await expect(readme('no table', [one])).rejects.toThrow('README.md has no')
  })
})

describe('a table', () => {
  it('has as many cells in each row as columns, whatever stands in them', () => {
    const cell = fc.stringMatching(/^[a-z |]*$/)
    fc.assert(
      fc.property(fc.array(fc.tuple(cell, cell, cell)), (rows) => {
        const lines = table(['a', 'b', 'c'], rows).split('\n')
        expect(lines).toHaveLength(2 + rows.length)
        for (const line of lines) expect(line.match(/(?<!\\)\|/g)).toHaveLength(4)
      }),
    )
  })
})

describe('record', () => {
  const taken = (question: string, lines: unknown[]) =>
    figures.parse({ ...conditions, ...answers[question](lines) })
  const engine = (
    name: string,
    engine: string,
    precision: string,
    threads: number,
    imagesPerSecond: number,
  ) => ({
    ...{ event: 'engine', name, engine, precision, threads, forward: false, imagesPerSecond },
    ...{ leaf: 16, gflops: 1, rounds: [imagesPerSecond] },
  })
  const none = { tensorflowVsTorchF32: null, tensorflowVsOnednnF32: null }

  it('takes the best of each engine, precision and thread count from `convoy bench engine`', () => {
    const ratios = { bf16VsTorchBf16: 1.264, bf16VsTorchF32: 2.35, f32VsTorchF32: null, shareOfPeak: 0.937 }
    const { rows, readme } = taken('engine', [
      engine('onednn bf16 leaf 16, 2 × 1 thread', 'onednn', 'bf16', 2, 251.2),
      engine('onednn bf16 leaf 64, 1 × 2 threads', 'onednn', 'bf16', 2, 240),
      { ...engine('onednn bf16 forward', 'onednn', 'bf16', 1, 400), forward: true },
      engine('tfjs-wasm float32 leaf 16, 1 × 1 thread', 'tfjs-wasm', 'float32', 1, 14.52),
      engine('PyTorch bf16 contiguous batch 64, 2 threads', 'torch 2.15.0', 'bf16', 2, 150),
      engine('PyTorch bf16 channels_last batch 64, 2 threads', 'torch 2.15.0', 'bf16', 2, 199),
      {
        event: 'summary',
        ...ratios,
        ...none,
        cudnnVsTorchEager512: 1.5,
        wasmVsCpu: 322,
        torch: '2.15.0+cpu (python3)',
      },
    ])
    expect(rows).toEqual([
      ['onednn bf16 leaf 16, 2 × 1 thread', '251 images/s'],
      ['tfjs-wasm float32 leaf 16, 1 × 1 thread', '14.5 images/s'],
      ['PyTorch bf16 channels_last batch 64, 2 threads', '199 images/s'],
      ['oneDNN bf16 beside PyTorch 2.15.0 bf16', '1.26 ×'],
      ['oneDNN bf16 beside PyTorch 2.15.0 float32', '2.35 ×'],
      ['cuDNN bf16 beside PyTorch 2.15.0 eager, leaf 512', '1.50 ×'],
      ['oneDNN bf16 beside the rate of a large bf16 matrix product of oneDNN', '0.94 ×'],
      ["WebAssembly beside TensorFlow.js's plain `cpu` backend, width 0.25", '322 ×'],
    ])
    expect(readme).toEqual([
      { what: 'training, oneDNN bf16, 2 threads', figure: '251 images/s' },
      { what: 'training, WebAssembly float32, 1 thread', figure: '14.5 images/s' },
      { what: 'oneDNN bf16 beside PyTorch 2.15.0 bf16', figure: '1.26 ×' },
      { what: 'oneDNN bf16 beside PyTorch 2.15.0 float32', figure: '2.35 ×' },
    ])
  })

  it('says of `convoy bench cluster` whether the aim is reached', () => {
    const summary = {
      ...{
        event: 'summary',
        clusterVsBare: 0.898,
        quartiles: [0.87, 0.91],
        clusterVsInStep: 0.92,
        inStepVsBare: 0.975,
      },
      ...{ bareImagesPerSecond: 236, clusterImagesPerSecond: 212, workers: 2, batchSize: 128 },
    }
    const round = { event: 'round', round: 1, bare: 236, inStep: 230, cluster: 212 }
    expect(taken('cluster', [round, summary]).rows).toContainEqual([
      'the cluster beside its engines alone',
      '89.8 % (87.0 % to 91.0 %); the aim, 95 %, is not reached',
    ])
    const better = taken('cluster', [{ ...summary, clusterVsBare: 0.96 }])
    expect(better.readme![0].figure).toBe('96.0 %; the aim, 95 %, is reached')
  })

  it('has a row for each recipe that was learned with', () => {
    const summary = (recipe: string, seeds: number[]) => ({
      ...{ event: 'summary', recipe, seeds, accuracy: 0.9012, accuracyWithFlip: 0.907, spread: 0.0015 },
      ...{ work: 12.04, seconds: 2400, ratioTo350: 350 / 12.04 },
    })
    const { rows, readme } = taken('learn', [
      { event: 'run', recipe: 'fast', seed: 1, accuracy: 0.9012 },
      summary('fast', [1, 2, 3]),
      summary('short', [1]),
    ])
    expect(rows).toEqual([
      ['fast', '3', '90.12 %', '90.70 %', '0.15 %', '12', '40 min', '29.1 ×'],
      ['short', '1', '90.12 %', '90.70 %', '0.15 %', '12', '40 min', '29.1 ×'],
    ])
    expect(readme![0]).toEqual({
      what: 'test accuracy, recipe fast, mean of 3 seeds',
      figure: '90.12 % by the work of 12 epochs, in 40 min',
    })
  })

  it('refuses what is not the output of the benchmark', () => {
    for (const question of Object.keys(answers)) {
      expect(() => answers[question]([])).toThrow('it has no line of JSON')
      expect(() => answers[question]([{ event: 'summary', equal: true }])).toThrow('this is not the output')
    }
  })
})
