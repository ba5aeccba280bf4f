import { onednnStatus } from '@convoy/engine-onednn'
import { cpSync } from 'node:fs'
import path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const common = ['--runs', folder, '--workers', '1', '--port', '0', '--json']
const small = ['--data', 'synthetic', '--limit-train', '90', '--limit-test', '20', '--batch-size', '16']
/** Where `auto` finds WebAssembly alone: oneDNN does not load, and nothing was set up. */
const without = { CONVOY_ONEDNN: '/nowhere/libdnnl.so', CONVOY_CACHE: path.join(folder, 'cache') }
const begin = (...args: string[]) =>
  new Convoy(['train', ...small, '--width', '0.125', '--epochs', '2', ...common, ...args], without)
const goOn = (name: string, ...args: string[]) => new Convoy(['train', '--name', name, ...common, ...args])

describe.skipIf(!onednnStatus().found)(
  'a run that began on WebAssembly, where oneDNN is found when it goes on (skipped: oneDNN is not installed)',
  () => {
    it('says so each time, and goes on as it began with the options that it names', async ({ skip }) => {
      const first = begin('--name', 'began', '--steps', '5')
      const began = await first.done()
      const { engine } = began['numerics'] as { engine: string }
      if (engine !== 'tfjs-wasm') return skip(`auto takes ${engine} here`)
      expect(first.event('slowEngine')).toMatchObject({
        reason: expect.stringMatching(/^WebAssembly, .* slower .*CONVOY_ONEDNN names no library/) as string,
      })
      cpSync(path.join(folder, 'began'), path.join(folder, 'faster'), { recursive: true })

      const refused = goOn('began', '--reproducible')
      expect(await refused.ended).toBe(1)
      const error = refused.event('error')
      expect(error).toMatchObject({ code: 'E_NUMERICS' })
      const options = /--engine tfjs-wasm --precision float32 --threads 1/.exec(String(error?.['remedy']))
      expect(options).not.toBe(null)

      const exact = await goOn('began', '--reproducible', ...options![0].split(' ')).done()
      expect(exact).toMatchObject({ mixed: false, step: 12 })
      expect(exact['parametersSha256']).toBe((await begin().done())['parametersSha256'])

      const faster = goOn('faster')
      expect(await faster.done()).toMatchObject({ mixed: true, step: 12, numerics: { engine: 'onednn' } })
      expect(faster.event('mixed')).toBeDefined()
    })
  },
)
