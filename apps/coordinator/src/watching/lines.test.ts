import { mkdtempSync, mkdirSync, readFileSync, rmSync, rmdirSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { LineFile } from './lines.ts'

let folder: string
let file: string
let told: string[]
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), 'convoy-lines-'))
  file = path.join(folder, 'lines.jsonl')
  told = []
})
afterEach(() => rmSync(folder, { recursive: true }))

const make = () => new LineFile(file, (message) => told.push(message))
const read = () =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as { n: number }).n)

describe('LineFile', () => {
  it('has every line in order, over several processes', async () => {
    for (const from of [0, 100]) {
      const lines = make()
      for (let n = from; n < from + 100; n++) {
        lines.write({ n })
        if (n % 30 === 0) await lines.flush()
      }
      await lines.close()
    }
    expect(read()).toEqual(Array.from({ length: 200 }, (_, n) => n))
    expect(told).toEqual([])
  })

  it.each([
    ['the end of a line', '{"n":1}\n{"n":', [1, 2]],
    ['a line longer than is read at a time', `{"n":1}\n{"x":"${'x'.repeat(200_000)}`, [1, 2]],
    ['its first line', '{"n', [2]],
  ])('goes on behind the last whole line where a killed process left %s torn', async (_, left, expected) => {
    writeFileSync(file, left)
    const lines = make()
    lines.write({ n: 2 })
    await lines.close()
    expect(read()).toEqual(expected)
  })

  it('keeps what the disk refuses, says so once, and writes it when it can', async () => {
    mkdirSync(file)
    const lines = make()
    for (const n of [1, 2, 3]) {
      lines.write({ n })
      await expect(lines.flush()).rejects.toThrow(/EISDIR/)
    }
    expect(told).toHaveLength(1)
    rmdirSync(file)
    lines.write({ n: 4 })
    await lines.flush()
    expect(read()).toEqual([1, 2, 3, 4])
    await lines.close()
  })

  it('loses the oldest lines, and says so, before they take all memory', async () => {
    mkdirSync(file)
    const lines = make()
    const text = 'x'.repeat(1 << 20)
    for (let n = 0; n < 40; n++) lines.write({ n, text })
    await expect(lines.flush()).rejects.toThrow()
    expect(told).toEqual([expect.stringContaining('lost'), expect.stringContaining('EISDIR')])
    rmdirSync(file)
    await lines.flush()
    const kept = read()
    expect(kept.at(-1)).toBe(39)
    expect(kept.length).toBeLessThan(17)
    await lines.close()
  })
})
