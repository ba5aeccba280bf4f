import { encodeFrame } from '@convoy/protocol'
import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { CheckpointStore, decodeCheckpoint, encodeCheckpoint, type Checkpoint } from './checkpoints.ts'

const checkpoint = (step: number): Checkpoint => ({
  identity: '{}',
  step,
  epoch: 1,
  size: 3,
  epochLoss: 1.5,
  epochCorrect: 2,
  epochSamples: 4,
  seconds: 9,
  rateFactor: 0.5,
  guard: { sum: 1.5, samples: 3, windows: 1, best: 2.25 },
  numerics: 'x',
  mixed: false,
  parameters: Float32Array.of(1, -0, 3e-42),
  velocity: Float32Array.of(0.1, Infinity, 2),
})

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'convoy-checkpoints-'))
})
afterEach(() => rm(folder, { recursive: true }))

const ignore = () => {}

describe('a checkpoint', () => {
  it('comes back with every bit', () => {
    const back = decodeCheckpoint(encodeCheckpoint(checkpoint(7)), 'f')
    expect(back).toEqual(checkpoint(7))
    expect(Object.is(back.parameters[1], -0)).toBe(true)
  })

  it('keeps what the parameters are made of, where that is something else', () => {
    const made = {
      ...checkpoint(7),
      variables: Float32Array.of(1, 2, -0, 4, 1e-42),
      velocity: Float32Array.of(5, 6, 7, 8, 9),
    }
    const back = decodeCheckpoint(encodeCheckpoint(made), 'f')
    expect(back).toEqual(made)
    expect(Object.is(back.variables![2], -0)).toBe(true)
  })

  it('is read as it was written before there were variables', () => {
    const { parameters, velocity, ...rest } = checkpoint(7)
    const body = encodeFrame({ kind: 'checkpoint', version: 1, ...rest }, parameters, velocity)
    const bytes = Buffer.concat([body, createHash('sha256').update(body).digest()])
    expect(decodeCheckpoint(bytes, 'f')).toEqual(checkpoint(7))
    expect(Buffer.from(encodeCheckpoint(checkpoint(7))).equals(bytes)).toBe(true)
  })

  it.each([
    ['other parameters than it says', { size: 4 }],
    ['a velocity of other length', { velocity: Float32Array.of(1, 2) }],
    ['fewer velocities than variables', { variables: Float32Array.of(1, 2, 3, 4) }],
    ['a velocity for each of too many variables', { variables: Float32Array.of(1, 2) }],
  ])('is refused with %s', (_, changes) => {
    const bytes = encodeCheckpoint({ ...checkpoint(7), ...changes })
    expect(() => decodeCheckpoint(bytes, 'f')).toThrowError(
      expect.objectContaining({
        code: 'E_CHECKPOINT',
        message: expect.stringMatching(/wrong size/) as string,
      }),
    )
  })

  it('is refused with E_CHECKPOINT when cut anywhere or changed by one bit', () => {
    const bytes = encodeCheckpoint(checkpoint(7))
    for (let length = 0; length < bytes.length; length += 7) {
      expect(() => decodeCheckpoint(bytes.subarray(0, length), 'f')).toThrowError(
        expect.objectContaining({ code: 'E_CHECKPOINT' }),
      )
    }
    for (let at = 0; at < bytes.length; at += 5) {
      const changed = bytes.slice()
      changed[at] ^= 1 << (at % 8)
      expect(() => decodeCheckpoint(changed, 'f')).toThrowError(
        expect.objectContaining({ code: 'E_CHECKPOINT' }),
      )
    }
  })
})

describe('CheckpointStore', () => {
  it('keeps the newest few and gives the newest', async () => {
    const store = new CheckpointStore(folder, 2)
    for (const step of [1, 20, 3]) await store.write(checkpoint(step))
    expect((await readdir(folder)).sort()).toEqual(['step-20.convoy', 'step-3.convoy'])
    expect((await store.newest(ignore))?.checkpoint.step).toBe(20)
  })

  it('passes over torn ones and says so', async () => {
    const store = new CheckpointStore(folder, 5)
    for (const step of [1, 2]) await store.write(checkpoint(step))
    const file = path.join(folder, 'step-2.convoy')
    await writeFile(file, (await readFile(file)).subarray(0, 40))
    const passed: string[] = []
    expect((await store.newest((name) => passed.push(name)))?.checkpoint.step).toBe(1)
    expect(passed).toEqual([file])
  })

  it('leaves nothing behind where it cannot write, and the old ones stay', async () => {
    const store = new CheckpointStore(folder, 5)
    await store.write(checkpoint(1))
    // A folder stands where the file should go: the rename fails, as root too.
    const { mkdir } = await import('node:fs/promises')
    await mkdir(path.join(folder, 'step-2.convoy', 'x'), { recursive: true })
    await expect(store.write(checkpoint(2))).rejects.toThrow()
    expect((await readdir(folder)).sort()).toEqual(['step-1.convoy', 'step-2.convoy'])
    expect((await store.newest(ignore))?.checkpoint.step).toBe(1)
  })

  it('writes one at a time, and of those that wait only the newest: a slow disk costs no memory', async () => {
    const store = new CheckpointStore(folder, 9)
    const writes = [1, 2, 3, 4].map((step) => store.write(checkpoint(step)))
    expect(store.busy).toBe(true)
    const file = (step: number) => path.join(folder, `step-${step}.convoy`)
    expect(await Promise.all(writes)).toEqual([file(1), undefined, undefined, file(4)])
    expect(store.busy).toBe(false)
    expect((await readdir(folder)).sort()).toEqual(['step-1.convoy', 'step-4.convoy'])
  })

  it('keeps the good one that it just wrote beside torn ones of later steps', async () => {
    for (const step of [8, 9]) await writeFile(path.join(folder, `step-${step}.convoy`), 'torn')
    const store = new CheckpointStore(folder, 1)
    expect(await store.newest(ignore)).toBeUndefined()
    for (const step of [3, 4]) await store.write(checkpoint(step))
    expect((await store.newest(ignore))?.checkpoint.step).toBe(4)
    expect((await readdir(folder)).sort()).toEqual(['step-4.convoy', 'step-8.convoy', 'step-9.convoy'])
  })

  it('removes what a process left that was killed in a write, and nothing else', async () => {
    const names = ['notes.txt', 'step-5.convoy', 'step-6.convoy.tmp']
    for (const name of [...names, 'step-7.convoy.4711.tmp']) await writeFile(path.join(folder, name), '')
    await new CheckpointStore(folder, 1).clean()
    expect((await readdir(folder)).sort()).toEqual(names)
  })

  it('writes nothing where what has to come first fails', async () => {
    const store = new CheckpointStore(folder, 1)
    const failing = () => Promise.reject(new Error('the ledger'))
    await expect(store.write(checkpoint(1), failing)).rejects.toThrow('the ledger')
    expect(await readdir(folder)).toEqual([])
    expect(store.busy).toBe(false)
  })
})
