import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { RunEvent } from '../events.ts'
import { TensorBoardLog } from './tensorboard.ts'

/** A python that has tensorboard: CONVOY_TENSORBOARD_PYTHON, or python3. */
const python = process.env['CONVOY_TENSORBOARD_PYTHON'] || 'python3'
const has = spawnSync(python, ['-c', 'import tensorboard']).status === 0
const unless = has
  ? ''
  : ' (skipped: python3 has no tensorboard; pip install tensorboard, or set CONVOY_TENSORBOARD_PYTHON)'

let folder: string
beforeEach(() => (folder = mkdtempSync(path.join(tmpdir(), 'convoy-test-'))))
afterEach(() => rmSync(folder, { recursive: true }))

const files = () =>
  readdirSync(folder)
    .sort()
    .map((name) => path.join(folder, name))

/** CRC-32C by its definition, bit by bit; the check value of "123456789" is 0xe3069283. */
function crc32c(bytes: Uint8Array): number {
  let crc = -1
  for (const byte of bytes) {
    crc ^= byte
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
  }
  return ~crc >>> 0
}

/** Data of the TFRecords of a file; throws where a sum is wrong. */
function records(file: Buffer): Buffer[] {
  const found: Buffer[] = []
  const check = (bytes: Buffer, at: number) => {
    const rotated = (file.readUInt32LE(at) - 0xa282ead8) >>> 0
    const crc = ((rotated >>> 17) | (rotated << 15)) >>> 0
    if (crc !== crc32c(bytes)) throw new Error(`a wrong sum at byte ${at}`)
  }
  for (let at = 0; at < file.length;) {
    const length = Number(file.readBigUInt64LE(at))
    check(file.subarray(at, at + 8), at + 8)
    const data = file.subarray(at + 12, at + 12 + length)
    check(data, at + 12 + length)
    found.push(data)
    at += 16 + length
  }
  return found
}

/** The fields of a protobuf message, by their numbers. */
function fields(data: Buffer): [number, number | Buffer][] {
  const found: [number, number | Buffer][] = []
  let at = 0
  const varint = () => {
    let value = 0
    for (let scale = 1; ; scale *= 128) {
      value += (data[at] & 127) * scale
      if (data[at++] < 128) return value
    }
  }
  while (at < data.length) {
    const key = varint()
    const take = (length: number) => data.subarray(at, (at += length))
    const type = key & 7
    if (type === 0) found.push([key >>> 3, varint()])
    else if (type === 1) found.push([key >>> 3, take(8).readDoubleLE()])
    else if (type === 2) found.push([key >>> 3, take(varint())])
    else if (type === 5) found.push([key >>> 3, take(4).readFloatLE()])
    else throw new Error(`wire type ${type}`)
  }
  return found
}

interface Scalar {
  step: number
  tag: string
  value: number
}

/** What the files hold, read by the published format alone. */
function read(): { scalars: Scalar[]; versions: string[]; starts: number[] } {
  const scalars: Scalar[] = []
  const versions: string[] = []
  const starts: number[] = []
  for (const file of files()) {
    for (const data of records(readFileSync(file))) {
      const event = new Map(fields(data))
      const step = event.get(2) as number
      expect(Math.abs((event.get(1) as number) - Date.now() / 1000)).toBeLessThan(3_600)
      if (event.has(3)) versions.push((event.get(3) as Buffer).toString())
      if (event.has(7)) starts.push(step)
      for (const [number, value] of event.has(5) ? fields(event.get(5) as Buffer) : []) {
        expect(number).toBe(1)
        const one = new Map(fields(value as Buffer))
        scalars.push({ step, tag: (one.get(1) as Buffer).toString(), value: one.get(2) as number })
      }
    }
  }
  return { scalars, versions, starts }
}

const start = (resumedAt: number) => ({ event: 'start', resumedAt }) as RunEvent
const step = (step: number, loss = 2 / step): RunEvent => ({
  ...{ event: 'step', step, epoch: 0, loss, cost1000: 1.5, cost5000: 1.75, accuracy: 0.5 },
  ...{ learningRate: 0.01, gradientNorm: 1, samples: 64, workers: 2 },
  ...{ seconds: 0.5, computeSeconds: 0.4, updateSeconds: 0.01 },
})
const test: RunEvent = { event: 'test', epoch: 1, step: 3, testLoss: 1.25, testAccuracy: 0.625, seconds: 1 }

/** A run of 300 steps that is killed at step 6 and resumed at 4, and goes back from 300 to 200. */
function run(): void {
  const first = new TensorBoardLog(folder)
  for (const event of [start(0), step(1), step(2), step(3), test, step(4), step(5, 9), step(6, 9)])
    first.hear(event)
  const second = new TensorBoardLog(folder)
  second.hear(start(4))
  for (let i = 5; i <= 300; i++) second.hear(step(i, i > 200 ? NaN : undefined))
  second.hear({ event: 'rolledBack', from: 300, to: 200, rateFactor: 0.5, reason: '' })
  second.hear(step(201))
  second.close()
  first.close()
}

describe('TensorBoardLog', () => {
  it('writes the curves, and no step twice when the run is resumed or goes back', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
    run()
    expect(files().length).toBe(3)
    const { scalars, versions, starts } = read()
    expect(versions).toEqual(['brain.Event:2', 'brain.Event:2', 'brain.Event:2'])
    expect(starts).toEqual([5, 201])
    const of = (tag: string) => scalars.filter((scalar) => scalar.tag === tag)
    const steps = Array.from({ length: 201 }, (_, i) => i + 1)
    for (const tag of ['loss', 'cost1000', 'cost5000', 'accuracy', 'learning_rate', 'images_per_second'])
      expect(of(tag).map((scalar) => scalar.step)).toEqual(steps)
    expect(of('loss').map(({ value }) => value)).toEqual(steps.map((i) => Math.fround(2 / i)))
    expect(of('cost1000')[0].value).toBe(1.5)
    expect(of('cost5000')[0].value).toBe(1.75)
    expect(of('learning_rate')[0].value).toBe(Math.fround(0.01))
    expect(of('images_per_second')[0].value).toBe(128)
    expect([...of('test/accuracy'), ...of('test/loss')]).toEqual([
      { step: 3, tag: 'test/accuracy', value: 0.625 },
      { step: 3, tag: 'test/loss', value: 1.25 },
    ])
  })

  it('writes the size of the images where a run has several', () => {
    const log = new TensorBoardLog(folder)
    const sizes = [
      { from: 0, size: 16 },
      { from: 1, size: 32 },
    ]
    log.hear({ ...start(0), sizes } as RunEvent)
    log.hear({ ...step(1), size: 16 } as RunEvent)
    log.hear(step(2))
    log.hear(start(2))
    log.hear(step(3))
    log.close()
    const of = (tag: string) => read().scalars.filter((scalar) => scalar.tag === tag)
    expect(of('size')).toEqual([
      { step: 1, tag: 'size', value: 16 },
      { step: 2, tag: 'size', value: 32 },
    ])
    expect(of('loss')).toHaveLength(3)
  })

  it('cuts off half a record, and leaves other files alone', () => {
    const log = new TensorBoardLog(folder)
    log.hear(start(0))
    log.hear(step(1))
    log.close()
    const [file] = files()
    writeFileSync(file, Buffer.concat([readFileSync(file), readFileSync(file).subarray(0, 30)]))
    writeFileSync(path.join(folder, 'notes.txt'), 'mine')
    const resumed = new TensorBoardLog(folder)
    resumed.hear(start(1))
    resumed.close()
    expect(readFileSync(path.join(folder, 'notes.txt'), 'utf8')).toBe('mine')
    rmSync(path.join(folder, 'notes.txt'))
    expect(read().scalars.filter(({ tag }) => tag === 'loss').length).toBe(1)
  })

  it.skipIf(!has)(`is read by TensorBoard's own reader${unless}`, () => {
    run()
    const program = `
import json, sys, types
# Where TensorFlow is there too, TensorBoard would import it to read with, which takes ten seconds.
sys.modules['tensorboard.compat.notf'] = types.ModuleType('notf')
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={'tensors': 0, 'scalars': 0}).Reload()
print(json.dumps({tag: [[e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}
    or {tag: [[e.step, float(e.tensor_proto.float_val[0])] for e in events.Tensors(tag)] for tag in events.Tags()['tensors']}))`
    const { stdout, stderr, status } = spawnSync(python, ['-c', program, folder], { encoding: 'utf8' })
    expect(status, stderr).toBe(0)
    const read = JSON.parse(stdout) as Record<string, [number, number][]>
    expect(Object.keys(read).sort()).toEqual(
      [
        ...['loss', 'cost1000', 'cost5000', 'accuracy', 'learning_rate', 'images_per_second'],
        ...['test/accuracy', 'test/loss'],
      ].sort(),
    )
    expect(read['loss']).toEqual(Array.from({ length: 201 }, (_, i) => [i + 1, Math.fround(2 / (i + 1))]))
    expect(read['test/accuracy']).toEqual([[3, 0.625]])
  })
})
