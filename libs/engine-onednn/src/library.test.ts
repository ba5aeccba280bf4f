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
