import { createEngine } from '@convoy/engines'

/** Whether an engine runs here, in float32 on one thread. */
const runs = (engine: 'onednn' | 'tfjs-wasm') =>
  createEngine({ engine, precision: 'float32', threads: 1, device: 0, gpu: false }).then(
    (created) => {
      created.dispose()
      return true
    },
    () => false,
  )

/** The engines that exactness is looked at with, and whether they are there. */
export const engines = [
  { engine: 'onednn', there: await runs('onednn') },
  { engine: 'tfjs-wasm', there: await runs('tfjs-wasm') },
] as const
