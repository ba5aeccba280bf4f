import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)
const small = [
  ...['train', '--data', 'synthetic', '--limit-train', '450', '--limit-test', '70', '--width', '0.125'],
  ...['--steps', '3', '--workers', '1', '--runs', folder, '--port', '0'],
]
const pod = { KUBERNETES_SERVICE_HOST: '10.0.0.1' }

describe('the log in a pod', () => {
  it('is JSON lines with level, time and words, whatever happens in a run', async () => {
    const run = new Convoy(small, pod)
    expect(await run.ended, run.text).toBe(0)
    for (const line of run.lines)
      expect(line).toMatchObject({
        level: expect.stringMatching(/^(info|warn)$/) as string,
        time: expect.stringMatching(/^\d{4}-.*Z$/) as string,
        msg: expect.any(String) as string,
      })
    for (const event of ['start', 'listening', 'workerJoined', 'test', 'done'])
      expect(run.event(event)).toBeDefined()
    expect(run.event('done')).toMatchObject({ step: 3 })
  })

  it.each([
    ['coordinator', ['--host', '0.0.0.0', '--port', '0', '--data', 'synthetic'], 'E_TOKEN_REQUIRED'],
    ['worker', ['--coordinator', 'ws://127.0.0.1:1', '--give-up-after', '1'], 'E_UNREACHABLE'],
  ])('of a %s tells the error that ends it, with its code and remedy', async (command, args, code) => {
    const runs = command === 'coordinator' ? ['--runs', folder] : []
    const convoy = new Convoy([command, ...args, ...runs], pod)
    expect(await convoy.ended).toBe(1)
    expect(convoy.lines.at(-1)).toMatchObject({ level: 'error', code, remedy: expect.any(String) as string })
  })

  it('stays as programs know it with --json', async () => {
    const done = await new Convoy([...small, '--json'], pod).done()
    expect(Object.keys(done)[0]).toBe('event')
    expect(done).not.toHaveProperty('level')
  })
})
