import { ConvoyError } from '@convoy/errors'
import { buildModel } from '@convoy/model'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { crc32 } from 'node:zlib'
import { closeFrame, decodeFrame, encodeFrame, payloadOf, reserveFrame, sealFrame, TRAILER } from './frame.ts'
import { PROTOCOL_VERSION, readCoordinatorMessage, readWorkerMessage } from './messages.ts'

const numerics = { engine: 'e', version: '1', precision: 'bf16', instructionSet: 'i', threads: 1 }
const node = { step: 3, lo: 0, hi: 4 }
const fromWorker = [
  {
    kind: 'hello',
    version: PROTOCOL_VERSION,
    name: 'w',
    instance: '0123456789abcdef',
    engine: 'e',
    numerics,
    cores: 2,
  },
  { kind: 'ready' },
  { kind: 'gradient', id: 1, ...node, count: 64, loss: 1.5, correct: 3, seconds: 0.1 },
  { kind: 'gradient', id: 1, ...node, count: 64, loss: 1.5, correct: 3, seconds: 0.1, head: true },
  { kind: 'tail', id: 1, ...node },
  { kind: 'evaluation', id: 1, ...node, seconds: 0.1 },
  { kind: 'leaving' },
  { kind: 'leaving', finishing: 4 },
  { kind: 'failed', id: 1, ...node, why: 'because' },
  { kind: 'dishonest', worker: 'w', ...node, since: 2 },
]
const fromCoordinator = [
  {
    kind: 'welcome',
    version: PROTOCOL_VERSION,
    name: 'w',
    run: 'r',
    model: buildModel('all-cnn-c', { input: [32, 32, 3], classes: 10 }),
    preprocessing: { kind: 'none' },
    augmentation: { flip: true, shift: 4 },
    seed: 2 ** 40,
    microBatch: 16,
    smaller: [{ size: 16, microBatch: 64 }],
    fingerprint: 'f',
    samples: true,
    down: 'bf16',
    relay: { verify: 0.5, rounding: { encoding: 'int8', leaves: 1 } },
  },
  { kind: 'parameters', step: 5 },
  {
    kind: 'work',
    task: 'gradient',
    id: 1,
    epoch: 0,
    ...node,
    count: 64,
    pixels: 'uint8',
    encoding: 'float32',
  },
  {
    kind: 'work',
    task: 'gradient',
    id: 1,
    epoch: 0,
    ...node,
    count: 64,
    size: 16,
    pixels: 'none',
    encoding: 'int8',
  },
  { kind: 'cancel', id: 1, ...node },
  { kind: 'refused', code: 'E_GRADIENT', message: 'm' },
  { kind: 'goodbye', code: 'OK', message: 'm', remedy: '', retryAfter: 1 },
  { kind: 'parameters', step: 5, ahead: { from: 3, version: 6 } },
  { kind: 'parametersTail', from: 3, version: 6 },
]

const optimizer = {
  ...{ optimizer: 'sgd', momentum: 0.9, nesterov: true, weightDecay: 0, clipNorm: 0 },
  ...{ parametrisation: 'plain', whitened: false, held: true },
}
const rounds = { steps: 8, batchSize: 128, optimizer }
const round = { step: 1_000, rates: [0.1, 0.05] }

describe('frames', () => {
  it('come back from any place in a larger buffer, with an aligned payload', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), fc.nat(20), fc.string(), (payload, shift, text) => {
        const frame = encodeFrame({ text }, payload)
        const around = new Uint8Array(frame.length + 40)
        around.set(frame, shift)
        const back = decodeFrame(around.subarray(shift, shift + frame.length))
        expect(back.header).toEqual({ text })
        expect([...back.payload]).toEqual([...payload])
        expect(back.payload.byteOffset % 8).toBe(0)
        // A Buffer, as sockets give it, must not come back as one: its `slice` would not copy.
        const buffer = Buffer.from(around.buffer, shift, frame.length)
        expect(Buffer.isBuffer(decodeFrame(buffer).payload)).toBe(false)
      }),
    )
  })

  it('can be reserved before their header is known', () => {
    const frame = reserveFrame(12)
    payloadOf(frame, 3).set([1, 2, 3])
    const bytes = sealFrame(frame, { kind: 'parameters', step: 9 }, 12)
    expect(bytes.buffer).toBe(frame)
    const back = decodeFrame(bytes)
    expect(back.header).toEqual({ kind: 'parameters', step: 9 })
    expect([...new Float32Array(back.payload.buffer, back.payload.byteOffset, 3)]).toEqual([1, 2, 3])
  })

  it('show that a bit was changed on their way', () => {
    const frame = encodeFrame({ text: 'x' }, new Float32Array(20))
    fc.assert(
      fc.property(fc.nat(8 * frame.length - 1), (bit) => {
        const changed = frame.slice()
        changed[bit >> 3] ^= 1 << (bit & 7)
        expect(() => decodeFrame(changed)).toThrowError(expect.objectContaining({ code: 'E_FRAME' }))
      }),
    )
  })

  it('are never believed: random bytes give an error of Convoy and nothing else', () => {
    const survive = (bytes: Uint8Array) => {
      // With the right sum they come further.
      if (bytes.length > TRAILER) closeFrame(bytes, crc32(bytes.subarray(0, -TRAILER)))
      try {
        readWorkerMessage(bytes)
      } catch (error) {
        expect(error).toBeInstanceOf(ConvoyError)
      }
    }
    fc.assert(fc.property(fc.uint8Array({ maxLength: 300 }), survive), { numRuns: 5_000 })
    // Valid frames with some bytes changed come further.
    const valid = fromWorker.map((message) => encodeFrame(message, new Uint8Array(16)))
    fc.assert(
      fc.property(
        fc.nat(valid.length - 1),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
        (which, changes) => {
          const bytes = valid[which].slice()
          for (const [at, value] of changes) bytes[at % bytes.length] = value
          survive(bytes)
        },
      ),
      { numRuns: 5_000 },
    )
  })
})

describe('messages', () => {
  // Not in the table below, since a test's title cannot show it.
  it.each(['kind', 'version'])('with a bigint for %s are refused as any other', (key) =>
    expect(() => readWorkerMessage(encodeFrame({ ...fromWorker[0], [key]: 12n ** 16n }))).toThrowError(
      expect.objectContaining({ code: expect.stringMatching(/^E_(MESSAGE|PROTOCOL_VERSION)$/) as string }),
    ),
  )

  it.each(fromWorker)('$kind comes back', (message) =>
    expect(readWorkerMessage(encodeFrame(message)).message).toEqual(message),
  )
  it.each(fromCoordinator)('$kind comes back', (message) =>
    expect(readCoordinatorMessage(encodeFrame(message)).message).toEqual(message),
  )

  it.each([
    [{ kind: 'dance' }, 'E_MESSAGE'],
    [null, 'E_MESSAGE'],
    [{ kind: { toString: 1 } }, 'E_MESSAGE'],
    [{ ...fromWorker[0], version: 99 }, 'E_PROTOCOL_VERSION'],
    [{ ...fromWorker[0], name: 'a\nb' }, 'E_MESSAGE'],
    [{ ...fromWorker[2], id: NaN }, 'E_MESSAGE'],
    [{ ...fromWorker[2], count: -1 }, 'E_MESSAGE'],
    [{ ...fromWorker[2], extra: 1 }, 'E_MESSAGE'],
    [{ ...fromWorker[0], version: { toJSON: 1 } }, 'E_PROTOCOL_VERSION'],
    [{ ...fromWorker[6], why: 'x'.repeat(3_000) }, 'E_MESSAGE'],
  ])('%j is refused with %s', (message, code) =>
    expect(() => readWorkerMessage(encodeFrame(message as object))).toThrowError(
      expect.objectContaining({ code }),
    ),
  )

  it.each([
    [{ ...fromCoordinator[0], smaller: undefined }],
    [{ ...fromCoordinator[0], smaller: [{ size: 0, microBatch: 64 }] }],
    [{ ...fromCoordinator[0], smaller: [{ size: 16, microBatch: 0 }] }],
    [{ ...fromCoordinator[0], smaller: Array<object>(65).fill({ size: 16, microBatch: 64 }) }],
    [{ ...fromCoordinator[3], size: 0 }],
    [{ ...fromCoordinator[3], size: 16.5 }],
    [{ ...fromCoordinator[3], size: 5_000 }],
  ])('sizes that no image has are refused (%j)', (message) =>
    expect(() => readCoordinatorMessage(encodeFrame(message))).toThrowError(
      expect.objectContaining({ code: 'E_MESSAGE' }),
    ),
  )

  it.each([
    [{ ...fromCoordinator[0], rounds }, undefined],
    [{ ...fromCoordinator[0], rounds: { ...rounds, steps: 0 } }, 'E_MESSAGE'],
    [{ ...fromCoordinator[0], rounds: { ...rounds, optimizer: { ...optimizer, momentum: 1 } } }, 'E_MESSAGE'],
    [{ ...fromCoordinator[2], round }, undefined],
    [{ ...fromCoordinator[2], round: { ...round, rates: [] } }, 'E_MESSAGE'],
    [{ ...fromCoordinator[2], round: { ...round, rates: [NaN] } }, 'E_MESSAGE'],
    [{ ...fromCoordinator[2], round: { ...round, rates: Array<number>(10_001).fill(1) } }, 'E_MESSAGE'],
  ])('rounds travel as they are, or are refused (case %#)', (message, code) => {
    const read = () => readCoordinatorMessage(encodeFrame(message))
    if (code) expect(read).toThrowError(expect.objectContaining({ code }))
    else expect(read().message).toEqual(message)
  })
})
