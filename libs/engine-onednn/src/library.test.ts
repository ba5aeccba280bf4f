import { afterEach, describe, expect, it, vi } from 'vitest'

/** The library is loaded once a thread, so every test takes the module anew. */
async function fresh() {
  vi.resetModules()
  return import('./library.ts')
}

afterEach(() => vi.unstubAllEnvs())

describe('loadOnednn', () => {
  it('throws E_ENGINE and says how to install where CONVOY_ONEDNN names nothing', async () => {
    vi.stubEnv('CONVOY_ONEDNN', '/nowhere/libdnnl.so')
    const { loadOnednn } = await fresh()
    expect(() => loadOnednn()).toThrow(
      expect.objectContaining({ code: 'E_ENGINE', remedy: expect.stringMatching(/install|setup/) as string }),
    )
  })
})

describe('onednnStatus', () => {
  it('tells the one command that installs what is missing', async () => {
    vi.stubEnv('CONVOY_ONEDNN', '/nowhere/libdnnl.so')
    const { onednnStatus } = await fresh()
    const status = onednnStatus()
    expect(status.found).toBe(false)
    if (!status.found) {
      expect(status.reason).toContain('/nowhere/libdnnl.so')
      expect(status.install).toMatch(/^((apt-get|dnf|brew|pip) install|\.\/convoy setup) \S+$/)
    }
  })

  it('tells version, file and instruction set of what is found', async ({ skip }) => {
    const { onednnStatus } = await fresh()
    const status = onednnStatus()
    if (!status.found) return skip('oneDNN is not installed')
    expect(status.version).toMatch(/^[23]\.\d+\.\d+$/)
    expect(status.path).toContain('dnnl')
    expect(status.instructionSet).not.toBe('')
  })
})

describe('slowInBf16', () => {
  const cpu = (vendor: string, ...flags: string[]) =>
    `vendor_id\t: ${vendor}\nflags\t\t: fpu ${flags.join(' ')}\n`

  it.each([
    ['Sapphire or Emerald Rapids, AMX hidden', cpu('GenuineIntel', 'avx512_bf16', 'avx512_fp16'), true],
    ['the same with AMX', cpu('GenuineIntel', 'amx_bf16', 'avx512_bf16', 'avx512_fp16'), false],
    ['Cooper Lake', cpu('GenuineIntel', 'avx512_bf16'), false],
    ['Zen 4', cpu('AuthenticAMD', 'avx512_bf16'), false],
    ['a system without /proc/cpuinfo', '', false],
  ])('of %s', async (_, text, slow) => {
    const { slowInBf16 } = await fresh()
    expect(slowInBf16(text)).toBe(slow)
  })

  it('decides what auto takes', async ({ skip }) => {
    const { onednnStatus } = await fresh()
    const status = onednnStatus()
    if (!status.found) return skip('oneDNN is not installed here')
    const { createOnednnEngine } = await import('./engine.ts')
    const engine = await createOnednnEngine({ precision: 'auto', threads: 1 })
    expect(engine.numerics.precision).toBe(status.faster)
    if (!status.bf16) expect(status.faster).toBe('float32')
    engine.dispose()
  })
})
