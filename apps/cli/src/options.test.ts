import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { serverSchema } from '@convoy/coordinator/config'
import { workerSchema } from '@convoy/worker/config'
import { z } from 'zod'
import { Command } from 'commander'
import { addOptions, checkConfigFile, collect, flagOf, settle, variableOf } from './options.ts'

const schema = z.object({
  batchSize: z.union([z.int().min(1), z.literal('full')]).default(128),
  rate: z.number().positive().default(0.1),
  flip: z.boolean().default(true),
  steps: z.array(z.number()).default([1]),
  name: z.string().optional(),
})

function withFile<T>(content: string, use: (file: string) => T): T {
  const folder = mkdtempSync(path.join(tmpdir(), 'convoy-options-'))
  const file = path.join(folder, 'config.json')
  writeFileSync(file, content)
  try {
    return use(file)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

describe('options', () => {
  it('has one name in three forms', () => {
    expect(flagOf('batchSize')).toBe('batch-size')
    expect(variableOf('batchSize')).toBe('CONVOY_BATCH_SIZE')
  })

  it('lets a flag win over the environment, and that over the file', () => {
    const values = withFile('{"rate": 1, "name": "file", "flip": false}', (file) =>
      collect(schema, { flags: { rate: '3' }, environment: { CONVOY_RATE: '2', CONVOY_NAME: 'env' }, file }),
    )
    expect(settle(schema, values)).toEqual({ batchSize: 128, rate: 3, flip: false, steps: [1], name: 'env' })
  })

  it('reads each type from text', () => {
    const environment = { CONVOY_BATCH_SIZE: 'full', CONVOY_FLIP: 'no', CONVOY_STEPS: '1,2.5' }
    expect(settle(schema, collect(schema, { flags: {}, environment }))).toMatchObject({
      batchSize: 'full',
      flip: false,
      steps: [1, 2.5],
    })
  })

  it.each([
    [{ rate: 'fast' }, /--rate fast/],
    [{ rate: '' }, /--rate/],
    [{ batchSize: '0' }, /--batch-size 0/],
    [{ flip: 'maybe' }, /--flip maybe/],
  ])('refuses %j, naming the flag', (flags, message) => {
    expect(() => settle(schema, collect(schema, { flags, environment: {} }))).toThrowError(message)
  })

  it.each([
    ['secret-1\n', 'secret-1'],
    [' a "quoted" one\r\n', 'a "quoted" one'],
    ['schlüssel', 'schlüssel'],
    ['x'.repeat(300), 'x'.repeat(300)],
  ])('takes the token %j as an HTTP header can carry it', (token, taken) => {
    for (const one of [serverSchema, workerSchema])
      expect(settle(one, collect(one, { flags: {}, environment: { CONVOY_TOKEN: token } })).token).toBe(taken)
  })

  it.each(['secret\nwith two lines', 'secret 😀 smile', 'tab\tinside it'])(
    'refuses the token %j unseen',
    (token) => {
      for (const one of [serverSchema, workerSchema])
        expect(() => settle(one, { token })).toThrowError(/^--token is not possible: .*header/)
    },
  )

  it('takes an IPv6 address with and without brackets', () => {
    for (const host of ['::1', '[::1]']) expect(settle(serverSchema, { host }).host).toBe('::1')
  })

  it('sets nothing that was not given', () => {
    const flags = (...args: string[]) =>
      addOptions(new Command(), schema).parse(args, { from: 'user' }).opts()
    expect(flags()).toEqual({})
    expect(flags('--no-flip')).toEqual({ flip: false })
    expect(flags('--flip', '--rate', '2')).toEqual({ flip: true, rate: '2' })
  })

  it('refuses a config file that is no JSON object, or sets what is no option', () => {
    withFile('[1]', (file) =>
      expect(() => checkConfigFile(file, new Set())).toThrowError(/not a JSON object/),
    )
    withFile('{', (file) => expect(() => checkConfigFile(file, new Set())).toThrowError(/cannot read/))
    withFile('{"batchsize": 1}', (file) =>
      expect(() => checkConfigFile(file, new Set(['batchSize']))).toThrowError(
        /sets batchsize, which is no option/,
      ),
    )
  })
})
