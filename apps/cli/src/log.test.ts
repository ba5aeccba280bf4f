import { Writable } from 'node:stream'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Display } from './display.ts'
import { openLog } from './log.ts'

/** A log by its flag, variables and whether it goes to a terminal; and the lines that it wrote. */
async function opened(flag: string | undefined, environment: NodeJS.ProcessEnv, isTTY: boolean) {
  let text = ''
  const out = new Writable({
    write(chunk: Buffer, _encoding, next) {
      text += chunk.toString()
      next()
    },
  })
  const flags = flag === undefined ? {} : { log: flag }
  const log = await openLog({ flags, environment }, { out: Object.assign(out, { isTTY }), environment })
  const lines = () =>
    text
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  return { log, out, lines }
}
const pod = { KUBERNETES_SERVICE_HOST: '10.0.0.1' }

describe('openLog', () => {
  it.each([
    [undefined, {}, false, false],
    [undefined, pod, false, true],
    [undefined, pod, true, false],
    ['pretty', pod, false, false],
    ['json', {}, true, true],
    [undefined, { CONVOY_LOG: 'json' }, false, true],
    [undefined, { ...pod, CONVOY_LOG: 'pretty' }, false, false],
    ['pretty', { CONVOY_LOG: 'json' }, false, false],
  ])('--log %s with %o, terminal %s: JSON %s', async (flag, environment, terminal, json) => {
    expect((await opened(flag, environment, terminal)).log !== undefined).toBe(json)
  })

  it('refuses other formats', async () => {
    await expect(opened('xml', {}, false)).rejects.toMatchObject({ code: 'E_USAGE' })
  })
})

describe('Display with a log', () => {
  afterEach(() => void vi.useRealTimers())

  it('writes each event as a line with its level, time, fields and words', async () => {
    const { log, out, lines } = await opened('json', {}, false)
    const display = new Display('pipe', out, log)
    display.say('next       do\n           this')
    display.show({ event: 'workerJoined', worker: 'a', engine: 'oneDNN', workers: 1 })
    display.show({ event: 'workerLeft', worker: 'a', reason: 'left', workers: 0 })
    display.show({ event: 'workerLeft', worker: 'b', reason: 'connection closed', workers: 0 })
    display.show({ event: 'checkpointFailed', step: 3, message: 'ENOSPC' })
    display.show({ event: 'checkpoint', step: 4, path: 'p' })
    expect(lines().map(({ level, event }) => [level, event])).toEqual([
      ['info', undefined],
      ['info', 'workerJoined'],
      ['info', 'workerLeft'],
      ['warn', 'workerLeft'],
      ['error', 'checkpointFailed'],
      ['info', 'checkpoint'],
    ])
    expect(lines()[0]['msg']).toBe('next do this')
    expect(lines()[1]).toMatchObject({ worker: 'a', workers: 1, msg: 'joined a (1 now): oneDNN' })
    for (const { time } of lines()) expect(new Date(String(time)).toISOString()).toBe(time)
  })

  it('tells how far the run is now and then, not every step', async () => {
    const { log, out, lines } = await opened('json', {}, false)
    const display = new Display('pipe', out, log)
    vi.useFakeTimers({ toFake: ['performance'] })
    for (let step = 1; step <= 1_000; step++) {
      vi.advanceTimersByTime(100)
      display.show({
        ...{ event: 'step', step, epoch: 0, loss: 2, cost1000: 2, cost5000: 2, accuracy: 0.1, workers: 1 },
        ...{
          learningRate: 0.1,
          gradientNorm: 1,
          samples: 10,
          seconds: 0.1,
          computeSeconds: 0.08,
          updateSeconds: 0.01,
        },
      })
    }
    vi.useRealTimers()
    expect(lines()).toHaveLength(10)
    expect(lines()[0]).toMatchObject({ level: 'info', event: 'step', cost1000: 2 })
  })
})
