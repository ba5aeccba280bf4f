import fc from 'fast-check'
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { spawn } from 'node:child_process'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, describe, expect, it } from 'vitest'
import { childrenOf, root, scratch } from '../convoy.ts'
import { answers } from '../figures/answers.ts'
import {
  changes,
  drawing,
  flags,
  optionsOf,
  parse,
  partsOf,
  readRun,
  runName,
  summarise,
  timeToGo,
  withWork,
  type Result,
} from './learn.ts'

const { folder, remove } = scratch()
afterAll(remove)

describe('parse', () => {
  it('has the seeds, the data set and the folder that are usual', () => {
    expect(parse([])).toMatchObject({ recipe: 'fast', seeds: [1, 2, 3], parts: false, runs: 'runs/learn' })
    expect(parse([]).given).toEqual({ data: 'cifar10' })
    expect(parse([], { CONVOY_DATA: '/images' }).given).toEqual({ data: '/images' })
    expect(parse(['--parts'])).toMatchObject({ seeds: [1, 2], given: { data: 'cifar10', holdOut: 5_000 } })
  })

  it('hands the options of convoy train on, with and without -- before them', () => {
    const expected = { data: 'synthetic', epochs: 2, limitTrain: 200, identityStart: false, workers: 1 }
    const options = ['--data', 'synthetic', '--epochs', '2', '--limit-train', '200', '--no-identity-start']
    expect(parse([...options, '--workers', '1']).given).toEqual(expected)
    expect(parse(['--json', '--', ...options, '--workers', '1'])).toMatchObject({
      json: true,
      given: expected,
    })
  })

  it.each([
    [['--recipe', 'cake'], /no recipe is called cake/],
    [['--seeds', '1,x'], /--seeds 1,x is no list/],
    [['--seeds', '1,1'], /--seeds 1,1 is no list/],
    [['--seeds', ''], /is no list/],
    [['--parts', '--svg', 'a.svg'], /--svg draws whole runs/],
    [['--epochs', 'many'], /--epochs many is not possible/],
    [['--seed', '1'], /--seed/],
    [['--cake'], /--cake/],
  ])('refuses %j', (args, message) => {
    expect(() => parse(args)).toThrow(message)
  })
})

describe('flags', () => {
  it('set the options that they were made of', () => {
    const { data: _, ...given } = parse([
      ...flags({ ...optionsOf('best'), data: 'x', milestones: [1, 2], nesterov: false, decay: undefined }),
    ]).given
    expect(given).toEqual({ ...optionsOf('best'), milestones: [1, 2], nesterov: false })
  })
})

describe('runName', () => {
  const fast = optionsOf('fast')

  it('is the same for the same result, however it was asked for', () => {
    const name = runName('fast', 1, fast)
    expect(name).toMatch(/^fast-seed1-[0-9a-f]{8}$/)
    const turned = Object.fromEntries(Object.entries(fast).reverse())
    expect(runName('fast', 1, { ...turned, momentum: 0.9, workers: 3, evaluateEvery: 5 })).toBe(name)
  })

  it('is another one where anything decides otherwise', () => {
    const others = [{ epochs: 3 }, { data: 'synthetic' }, { holdOut: 100 }, { until: '85%' }, { threads: 2 }]
    const names = others.map((other) => runName('fast', 1, { ...fast, ...other }))
    expect(new Set([runName('fast', 1, fast), ...names]).size).toBe(others.length + 1)
  })

  it('is a name of a run', () => {
    for (const { name, options } of partsOf('fast', {}))
      expect(runName(`fast-${name}`, 12, options)).toMatch(/^[\w.-]{1,80}$/)
  })
})

describe('the parts', () => {
  it('are the whole and one run for each change of fast', () => {
    const parts = partsOf('fast', { data: 'synthetic', holdOut: 50 })
    expect(parts.map(({ name }) => name)).toEqual(['whole', ...Object.keys(changes)])
    const [whole, ...others] = parts.map(({ options }) => options)
    expect(whole).toEqual({ ...optionsOf('fast'), epochs: 4, data: 'synthetic', holdOut: 50 })
    others.forEach((options, i) => {
      const { changed, name } = parts[i + 1]
      expect(options, name).toEqual({
        ...whole,
        ...changed,
        ...(name === 'full size only' ? { epochs: 2 } : {}),
      })
    })
  })

  it('leave out what is in a recipe already, or not at all', () => {
    const names = partsOf('keras', { epochs: 1 }).map(({ name }) => name)
    expect(names).toContain('sgd')
    for (const name of ['no shift', 'no label smoothing', 'full size only', 'no identity start'])
      expect(names).not.toContain(name)
  })

  it('have as many epochs as come nearest to a work', () => {
    const sizes = '16:0.5,32'
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 400 }), (epochs) => {
        expect(withWork({ sizes }, 0.625 * epochs)).toEqual({ sizes, epochs })
        expect(withWork({}, epochs)).toEqual({ epochs })
      }),
    )
    expect(withWork({ sizes }, 0.01).epochs).toBe(1)
  })
})

describe('readRun', () => {
  it('counts what was done again once, and has the end of a finished run only', async () => {
    const directory = path.join(folder, 'run')
    mkdirSync(directory)
    const write = (...events: object[]) =>
      appendFileSync(
        path.join(directory, 'metrics.jsonl'),
        events.map((event) => `${JSON.stringify(event)}\n`).join(''),
      )
    const step = (n: number) => ({ event: 'step', step: n, samples: 100, work: n / 8 })
    const test = (n: number, testAccuracy: number) => ({ event: 'test', step: n, testAccuracy })
    expect(await readRun(directory)).toEqual({ done: undefined, images: 0, tests: [] })
    write(step(1), step(2), test(2, 0.3), step(3), { event: 'done', finished: false })
    expect((await readRun(directory)).done).toBeUndefined()
    write({ event: 'start' }, step(3), step(4), test(4, 0.5), { event: 'done', finished: true, step: 4 })
    expect(await readRun(directory)).toEqual({
      done: { event: 'done', finished: true, step: 4 },
      images: 400,
      tests: [
        { work: 0.25, accuracy: 0.3 },
        { work: 0.5, accuracy: 0.5 },
      ],
    })
  })
})

describe('summarise', () => {
  const result = (seed: number, accuracy: number): Result => ({
    ...{ seed, epochs: 14, work: 7 + seed, images: 700_000, seconds: 1_000 * seed },
    ...{ accuracy, accuracyWithFlip: accuracy + 0.01, parametersSha256: 'a' },
  })

  it('takes means, and what lies between the best and the worst', () => {
    const summary = summarise('fast', [result(1, 0.9), result(2, 0.92), result(3, 0.91)])
    expect(summary).toMatchObject({
      event: 'summary',
      recipe: 'fast',
      seeds: [1, 2, 3],
      work: 9,
      seconds: 2_000,
    })
    expect(summary.accuracy).toBeCloseTo(0.91, 12)
    expect(summary.accuracyWithFlip).toBeCloseTo(0.92, 12)
    expect(summary.spread).toBeCloseTo(0.02, 12)
    expect(summary.ratioTo350).toBeCloseTo(350 / 9, 12)
  })

  it('is what `npm run figures -- record learn` takes', () => {
    const { rows } = answers['learn']([
      { event: 'run' },
      summarise('fast', [result(1, 0.9), result(3, 0.91)]),
    ])
    expect(rows).toEqual([['fast', '2', '90.50 %', '91.50 %', '1.00 %', '9', '33 min', '38.9 ×']])
  })

  it('has no spread of one seed', () => {
    expect(summarise('fast', [result(1, 0.9)])).toMatchObject({ accuracy: 0.9, spread: 0, work: 8 })
  })
})

describe('timeToGo', () => {
  it('goes by the work of this session', () => {
    expect(timeToGo(60, 2, 3, 8)).toBe(300)
    expect(timeToGo(60, 2, 2, 8)).toBe(Infinity)
  })
})

describe('drawing', () => {
  it('has a line a seed and the mark of the paper', () => {
    const run = (last: number) => ({
      ...{ done: undefined, images: 0 },
      tests: [
        { work: 0.5, accuracy: 0.4 },
        { work: 8, accuracy: last },
      ],
    })
    const svg = drawing('fast', [
      { seed: 1, run: run(0.9) },
      { seed: 5, run: run(0.91) },
    ])!
    expect(svg).toMatch(/^<svg xmlns="http:\/\/www.w3.org\/2000\/svg" [^>]*over full-size epochs of work">/)
    expect(svg.match(/class="line"/g)).toHaveLength(2)
    expect(svg).toMatch(/<tspan fill="#1f62c9">seed 1<\/tspan>, <tspan fill="#c05a0b">seed 5<\/tspan>/)
    expect(svg).toContain('the paper, 90.92 %')
    expect(drawing('fast', [{ seed: 1, run: { ...run(0), tests: [] } }])).toBeUndefined()
  })
})

describe('npm run bench:learn', () => {
  const begin = (runs: string, ...more: string[]) =>
    spawn(
      process.execPath,
      [
        ...[path.join(root, 'tools', 'run.mjs'), path.join(root, 'test', 'learn', 'main.ts')],
        ...[
          '--seeds',
          '7',
          '--runs',
          path.join(folder, runs),
          '--json',
          '--data',
          'synthetic',
          '--epochs',
          '2',
        ],
        ...['--width', '0.0625', '--limit-train', '200', '--limit-test', '50', '--batch-size', '2'],
        ...['--micro-batch', '1', '--workers', '1', ...more],
      ],
      { stdio: ['ignore', 'pipe', 'pipe'] },
    )
  const end = async (harness: ReturnType<typeof begin>) => {
    const [code, out, error] = await Promise.all([
      new Promise<number | null>((resolve) => harness.once('exit', resolve)),
      text(harness.stdout),
      text(harness.stderr),
    ])
    const lines = out.trim() === '' ? [] : out.trim().split('\n')
    return { code, error, lines: lines.map((line) => JSON.parse(line) as Record<string, unknown>) }
  }
  /** Waits until a run has done so many updates in its session of this number; it has a checkpoint after its first 100. */
  async function reached(runs: string, name: string, session: number, updates: number): Promise<void> {
    const metrics = path.join(folder, runs, name, 'metrics.jsonl')
    const done = () => {
      const sessions = existsSync(metrics) ? readFileSync(metrics, 'utf8').split('"event":"start"') : []
      return sessions[session]?.match(/"event":"step"/g)?.length ?? 0
    }
    while (done() < updates) await new Promise((go) => setTimeout(go, 5))
  }

  it('goes on with a run whose process was killed or interrupted, and reads one that is finished', async () => {
    const svg = path.join(folder, 'accuracy.svg')
    const whole = await end(begin('whole', '--svg', svg))
    expect(whole).toMatchObject({ code: 0, error: expect.stringContaining('work') as string })
    const [run, summary] = whole.lines
    expect(run).toMatchObject({ event: 'run', recipe: 'fast', seed: 7, epochs: 2, images: 400 })
    expect(run['work']).toBeCloseTo(2 * (0.4 * 0.25 + 0.3 * 0.5625 + 0.3), 6)
    expect(summary).toMatchObject({ event: 'summary', seeds: [7], accuracy: run['accuracy'], spread: 0 })
    const [name] = readdirSync(path.join(folder, 'whole'))

    const killed = begin('other')
    await reached('other', name, 1, 105)
    for (const child of await childrenOf(killed.pid!)) process.kill(child, 'SIGKILL')
    expect(await end(killed)).toMatchObject({ code: 1, lines: [] })
    const stopped = begin('other')
    await reached('other', name, 2, 10)
    stopped.kill('SIGINT')
    expect(await end(stopped)).toMatchObject({ code: 130, lines: [] })
    const last = await end(begin('other'))
    expect(last.lines[0]).toEqual({ ...run, seconds: last.lines[0]['seconds'] })

    const again = await end(begin('whole'))
    expect(again.lines).toEqual(whole.lines)
    expect(again.error).not.toContain('work')
    expect(readFileSync(svg, 'utf8')).toContain('seed 7')
  })
})
