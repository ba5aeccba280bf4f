import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Convoy, scratch, type Line } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)
const directory = path.join(folder, 'reported')
const report = (...args: string[]) => new Convoy(['report', ...args, '--runs', folder])

describe('convoy report', () => {
  let done: Line
  beforeAll(async () => {
    done = await new Convoy([
      ...['train', '--data', 'synthetic', '--limit-train', '450', '--limit-test', '70', '--width', '0.125'],
      ...['--epochs', '3', '--workers', '1', '--runs', folder, '--name', 'reported', '--port', '0', '--json'],
    ]).done()
  })

  it('writes one file with curves, figures and hashes that loads and runs nothing', async () => {
    const run = report()
    expect(await run.ended).toBe(0)
    const file = path.join(directory, 'report.html')
    expect(run.text).toContain(file)
    const html = readFileSync(file, 'utf8')
    expect(html).toContain(done['parametersSha256'])
    expect(html).toContain(`${(100 * Number(done['testAccuracy'])).toFixed(2)} %`)
    expect(html).toContain(`${String(done['step'])} of ${String(done['step'])}`)
    expect(html).toContain(process.version)
    expect(html.match(/<svg /g)).toHaveLength(4)
    // No paper's accuracy beside synthetic images.
    expect(html).not.toContain('90.92')
    expect(html).not.toMatch(/<script|<link|<img|\bsrc=|href=|url\(|@import/)
  })

  it('shows sizes and work where images were smaller at first', async () => {
    const sizes = [
      { from: 0, size: 16 },
      { from: 2, size: 32 },
    ]
    const work = [0.0625, 0.125, 0.375, 0.625, 1, 1.25, 1.5, 1.75, 2]
    const of = (name: string) => path.join(folder, name)
    cpSync(directory, of('sized'), { recursive: true })
    const lines = readFileSync(path.join(directory, 'metrics.jsonl'), 'utf8').trimEnd().split('\n')
    const until = { accuracy: 0.5, reached: true, epochs: 3, seconds: 61, samples: 1_350, work: 2.2 }
    const sized = lines.map((text) => {
      const line = JSON.parse(text) as Line
      if (line.event === 'start') return { ...line, sizes }
      if (line.event === 'step') return { ...line, work: work[Number(line['step']) - 1] ?? 2.2 }
      return line.event === 'done' ? { ...line, until } : line
    })
    writeFileSync(
      path.join(of('sized'), 'metrics.jsonl'),
      sized.map((line) => `${JSON.stringify(line)}\n`).join(''),
    )
    expect(await report('sized').ended).toBe(0)
    const html = readFileSync(path.join(of('sized'), 'report.html'), 'utf8')
    expect(html.match(/<svg /g)).toHaveLength(5)
    expect(html).toContain('<dt>sizes</dt><dd>16 px, 32 px after step 2</dd>')
    expect(html).toContain('<dt>work</dt><dd>2.2 full-size epochs</dd>')
    expect(html).toContain('reached 50.00 % after 3 epochs, the work of 2.2 full-size ones, in 1 min 01 s')
  })

  it('shows what others wrote as text', async () => {
    const metrics = path.join(directory, 'metrics.jsonl')
    const evil = {
      time: 1,
      event: 'workerLeft',
      worker: '<script>alert(1)</script>',
      reason: '"><img src=x>',
    }
    writeFileSync(
      metrics,
      `${readFileSync(metrics, 'utf8')}${JSON.stringify({ ...evil, workers: 0 })}\n{"torn`,
    )
    const file = path.join(folder, 'evil.html')
    expect(await report('reported', '--out', file).ended).toBe(0)
    const html = readFileSync(file, 'utf8')
    expect(html).toContain('&#60;script&#62;alert(1)')
    expect(html).not.toMatch(/<script|<img/)
  })

  it('takes a folder, and says which runs it cannot report', async () => {
    const file = path.join(folder, 'other.html')
    expect(await report(directory, '--out', file, '--json').ended).toBe(0)
    const none = report('no-such-run')
    expect(await none.ended).toBe(1)
    expect(none.text).toMatch(/E_RUN: .*no-such-run/)
    writeFileSync(path.join(directory, 'metrics.jsonl'), '{"event":"st')
    const torn = report('reported')
    expect(await torn.ended).toBe(1)
    expect(torn.text).toMatch(/E_RUN: .*no metrics yet/)
  })
})
