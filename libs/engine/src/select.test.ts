import { ConvoyError, type ErrorCode } from '@convoy/errors'
import { describe, expect, it } from 'vitest'
import type { Engine } from './engine.ts'
import { selectEngine, type EngineChoice, type EngineVendor } from './select.ts'

const refusal = (code: ErrorCode, name: string) => new ConvoyError(code, `no ${name}`, `Mend ${name}.`)

/** A fast vendor on GPUs, one on the CPU and one with a way on each, some of which fail; and what was tried. */
function setUp(failing: Readonly<Record<string, unknown>> = {}, gpus = 0) {
  const tried: string[] = []
  const vendor = (names: string[], onGpu: string[], onCpu: string[]): EngineVendor => ({
    names,
    onGpu,
    onCpu,
    async create({ engine, gpu }: EngineChoice): Promise<Engine> {
      const what = `${engine}${gpu ? ' on a GPU' : ''}`
      tried.push(what)
      if (what in failing) throw failing[what]
      return { description: what } as Engine
    },
  })
  const vendors = [
    { ...vendor(['fast'], ['fast'], []), gpuCount: async () => gpus },
    vendor(['plain'], [], ['plain']),
    vendor(['many', 'many-1', 'many-2'], ['many-2'], ['many-1', 'many-2']),
  ]
  const select = async (engine: string, gpu = false) =>
    (await selectEngine(vendors, { engine, precision: 'auto', threads: 1, device: 0, gpu })).description
  return { tried, select }
}

describe('selectEngine', () => {
  it('takes the one that was named and tries no other', async () => {
    const { select, tried } = setUp({ 'many-1': refusal('E_ENGINE', 'many-1') }, 1)
    expect(await select('many-2')).toBe('many-2')
    await expect(select('many-1')).rejects.toMatchObject({ code: 'E_ENGINE', message: 'no many-1' })
    expect(tried).toEqual(['many-2', 'many-1'])
  })

  it('takes for `auto` the first of the list, of those on GPUs only where there is one', async () => {
    expect(await setUp({}, 0).select('auto')).toBe('plain')
    expect(await setUp({}, 1).select('auto')).toBe('fast on a GPU')
  })

  it('tries for `auto` every GPU engine, then every CPU engine, and gives the last reason', async () => {
    const all = ['fast on a GPU', 'many-2 on a GPU', 'plain', 'many-1', 'many-2']
    const failing = Object.fromEntries(all.map((what) => [what, refusal('E_ENGINE', what)]))
    const { select, tried } = setUp(failing, 1)
    await expect(select('auto')).rejects.toMatchObject({ message: 'no many-2', remedy: 'Mend many-2.' })
    expect(tried).toEqual(all)
  })

  it('tries GPU engines alone where a GPU is demanded, and gives all reasons', async () => {
    const failing = {
      'fast on a GPU': refusal('E_ENGINE_GPU', 'fast'),
      'many-2 on a GPU': refusal('E_ENGINE_GPU', 'many'),
    }
    const { select, tried } = setUp(failing, 0)
    await expect(select('auto', true)).rejects.toMatchObject({
      code: 'E_ENGINE_GPU',
      message: 'no fast; no many',
      remedy: 'Mend fast.',
    })
    expect(tried).toEqual(Object.keys(failing))
  })

  it('keeps to a vendor that was named, on a GPU only where one is demanded', async () => {
    const { select } = setUp({ 'many-1': refusal('E_ENGINE', 'many-1') }, 1)
    expect(await select('many')).toBe('many-2')
    expect(await select('many', true)).toBe('many-2 on a GPU')
  })

  it('goes past what is not installed, and says so where nothing else is left', async () => {
    const missing = Object.assign(new Error("Cannot find package 'x'"), { code: 'ERR_MODULE_NOT_FOUND' })
    const { select } = setUp({ plain: missing })
    expect(await select('auto')).toBe('many-1')
    await expect(select('plain')).rejects.toMatchObject({
      code: 'E_ENGINE',
      message: 'what the engine plain needs is not part of this installation',
    })
  })

  it('passes a defect on instead of taking a slower engine', async () => {
    const { select, tried } = setUp({ plain: new TypeError('a defect') })
    await expect(select('auto')).rejects.toMatchObject({ code: 'E_INTERNAL' })
    expect(tried).toEqual(['plain'])
  })

  it('refuses a name that no vendor has', async () => {
    await expect(setUp().select('none')).rejects.toMatchObject({
      code: 'E_ENGINE',
      message: 'there is no engine none',
      remedy: 'Use auto, or fast, plain, many, many-1, many-2.',
    })
  })
})
