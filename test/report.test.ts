import { readFileSync, writeFileSync } from 'node:fs'
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
