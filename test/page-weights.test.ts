import { buildModel, initialise } from '@convoy/model'
import { encodeFrame } from '@convoy/protocol'
import { describe, expect, it } from 'vitest'
import { readWeights } from '../apps/dashboard/src/checkpoint.ts'

const model = buildModel('all-cnn-c', { input: [8, 8, 3], classes: 3, width: 0.05 })
const network = { model, classes: ['a', 'b', 'c'], preprocessing: { kind: 'none' } }
const parameters = initialise(model, 'heUniform', 1)

/** A checkpoint as the coordinator writes it, with what the page does not look at left out, its SHA-256 too. */
function written(header: object, ...numbers: Float32Array[]): Uint8Array {
  const body = encodeFrame({ kind: 'checkpoint', version: 1, step: 9, network, ...header }, ...numbers)
  const bytes = new Uint8Array(body.length + 32)
  bytes.set(body)
  return bytes
}
const numbers = (count: number) => new Float32Array(count).fill(7)
const read = (bytes: Uint8Array) => readWeights(bytes, 'step-9.convoy')

describe('readWeights of a checkpoint', () => {
  const size = parameters.length

  it('finds the parameters before the velocity', async () => {
    const weights = await read(written({}, parameters, numbers(size)))
    expect(weights).toEqual({ ...network, parameters, step: 9 })
  })

  it('and before the variables that they are made of', async () => {
    const variables = size + 12
    const bytes = written({ variablesSize: variables }, parameters, numbers(variables), numbers(variables))
    expect(await read(bytes)).toEqual({ ...network, parameters, step: 9 })
  })

  it.each([
    ['without all of its velocity', {}, size - 1],
    ['with more variables than it says', { variablesSize: 5 }, 12],
    ['whose count of variables is none', { variablesSize: 'many' }, size],
  ])('refuses one %s', async (_, header, count) => {
    await expect(read(written(header, parameters, numbers(count)))).rejects.toThrowError(
      expect.objectContaining({ code: 'E_WEIGHTS_FILE' }),
    )
  })

  it('refuses one that was changed', async () => {
    const bytes = written({}, parameters, numbers(size))
    bytes[100] ^= 1
    await expect(read(bytes)).rejects.toThrowError(/torn/)
  })
})
