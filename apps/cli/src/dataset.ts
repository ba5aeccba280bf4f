import { coordinatorSchema } from '@convoy/coordinator'
import { loadDataset, type Dataset } from '@convoy/data'
import type { Display } from './display.ts'
import { pick, settle } from './options.ts'

/** Loads the data set that the values ask for, with its progress on the display. */
export async function loadData(values: Record<string, unknown>, display: Display): Promise<Dataset> {
  const config = settle(coordinatorSchema.pick(dataKeys), pick(values, Object.keys(dataKeys)))
  return loadDataset(config.data, {
    size: config.imageSize,
    progress: (text) => display.progress(text),
    warn: (text) => display.say(`warning    ${text}`),
    ...(config.cache === undefined ? {} : { cacheDirectory: config.cache }),
    ...(config.limitTrain === undefined ? {} : { limitTrain: config.limitTrain }),
    ...(config.skipUnreadable === undefined ? {} : { skipUnreadable: config.skipUnreadable }),
    ...(config.holdOut === undefined ? {} : { holdOut: config.holdOut }),
    ...(config.limitTest === undefined ? {} : { limitTest: config.limitTest }),
  })
}

const dataKeys = {
  data: true,
  holdOut: true,
  skipUnreadable: true,
  limitTrain: true,
  limitTest: true,
  imageSize: true,
  cache: true,
} as const
