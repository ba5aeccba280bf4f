import type { RunEvent } from '@convoy/coordinator'
import { describe, expect, it } from 'vitest'
import { eventText, untilText } from './event-text.ts'

const until = { accuracy: 0.9092, reached: true, epochs: 12, seconds: 1_623, samples: 600_000, work: 6.14 }

describe('untilText', () => {
  it('says epochs, work and minutes', () =>
    expect(untilText(until)).toBe(
      'reached 90.92 % after 12 epochs, the work of 6.1 full-size ones, in 27 min 03 s',
    ))

  it('leaves out the work where all images were of full size', () =>
    expect(untilText({ ...until, epochs: 1, work: 1 })).toBe('reached 90.92 % after 1 epoch in 27 min 03 s'))

  it('says when it was not reached', () =>
    expect(untilText({ ...until, reached: false })).toMatch(/^90\.92 % not reached after 12 epochs, /))
})

describe('eventText', () => {
  it('names the options that go on as a run began', () => {
    const first = 'tfjs-wasm 4.22.0 v8 11.3.244, float32, wasm-simd, 1 thread'
    const mixed = (began: string) =>
      eventText({ event: 'mixed', worker: 'w', first: began, other: 'other' }, undefined)
    expect(mixed(first)).toMatch(
      /; with --engine tfjs-wasm --precision float32 --threads 1 it goes on as it began\.$/,
    )
    expect(mixed('webgpu 1, 2 and 3, bf16, A, B, 4 threads')).toMatch(
      /--engine webgpu --precision bf16 --threads 4/,
    )
    expect(mixed('of another version')).toMatch(/; with the options of its first worker it/)
  })

  const start: Extract<RunEvent, { event: 'start' }> = {
    ...{ event: 'start', run: 'r', model: 'm', parameters: 1, data: 'd', origin: 'o', trainImages: 100 },
    ...{ testImages: 10, epochs: 14, stepsPerEpoch: 10, batchSize: 10, seed: 1, resumedAt: 0, work: 8.16 },
  }
  const sizes = [
    { from: 0, size: 16 },
    { from: 2_190, size: 32 },
  ]
  const done: Extract<RunEvent, { event: 'done' }> = {
    ...{ event: 'done', run: 'r', parametersSha256: 'a', step: 140, epoch: 14, work: 8.16, mixed: false },
    ...{ imagesPerSecond: 5, trainLoss: 1, testAccuracy: null, seconds: 60, numerics: null, finished: true },
  }

  it('tells the sizes of a run that has some, and what it costs', () => {
    expect(eventText({ ...start, sizes }, undefined)).toMatch(
      /\nimages {5}16 px, 32 px after step 2,190\n {11}in all the work of 8\.2 full-size epochs$/,
    )
    expect(eventText(done, { ...start, sizes })).toContain(
      'epoch 14, the work of 8.2 full-size epochs, 1 min 00 s of training',
    )
  })

  it('says nothing of sizes where there are none', () => {
    expect(eventText(start, undefined)).not.toMatch(/px|full-size/)
    expect(eventText({ ...done, work: 14 }, start)).not.toContain('full-size')
  })
})
