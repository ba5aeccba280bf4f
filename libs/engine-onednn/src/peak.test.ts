import { describe, expect, it } from 'vitest'
import { createOnednnEngine } from './engine.ts'
import { onednnStatus } from './library.ts'
import { fasterPrecision, measurePeak } from './peak.ts'

const status = onednnStatus()

describe.skipIf(!status.found)('#fasterPrecision (skipped where oneDNN is not installed)', () => {
  it('is what auto takes', async () => {
    const engine = await createOnednnEngine({ precision: 'auto', threads: 1 })
    expect(engine.numerics.precision).toBe(fasterPrecision())
    engine.dispose()
  })

  it('is bf16 only where the processor has it, and multiplies faster with it', () => {
    if (!status.found || !status.bf16) expect(fasterPrecision()).toBe('float32')
    else {
      const ratio = measurePeak('bf16', 1, 5) / measurePeak('float32', 1, 5)
      // Known processors are at 0.5 or at 2 and more; in between, either answer is right.
      if (ratio > 1.3) expect(fasterPrecision()).toBe('bf16')
      if (ratio < 0.8) expect(fasterPrecision()).toBe('float32')
    }
  })
})
