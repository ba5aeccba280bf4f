import { describe, expect, it } from 'vitest'
import { Convoy } from './convoy.ts'

describe('the command line', () => {
  it.each([
    [['train', '--learning-rate', '-1'], /E_USAGE: --learning-rate -1/, 2],
    [['train', '--until', '85'], /E_USAGE: --until 85 .*percentage/, 2],
    [['train', '--model', 'resnet'], /E_USAGE: --model resnet/, 2],
    [['train', '--recipe', 'cake'], /E_USAGE: no recipe is called cake/, 2],
    [['train', '--no-such-flag'], /unknown option/, 2],
    [['bench', 'cluster', '--rounds', 'x'], /E_USAGE: --rounds x/, 2],
    [['train', '--data', '/no/such/place'], /E_DATA_NOT_FOUND/, 1],
    [['evaluate', '--runs', '/no/such/place'], /E_RUN: there is no run/, 1],
    [['worker', '--coordinator', 'ws://127.0.0.1:9', '--give-up-after', '1'], /E_UNREACHABLE/, 1],
    [['worker', '--coordinator', 'nonsense'], /E_USAGE: nonsense is not the address/, 2],
  ] as const)('%j is refused in one clear error', async (args, message, code) => {
    const run = new Convoy([...args])
    expect(await run.ended).toBe(code)
    expect(run.text).toMatch(message)
    expect(run.text).not.toMatch(/\n\s+at /)
  })

  it('takes an option from the environment, and a flag over it', async () => {
    const run = new Convoy(['train', '--seed', '-3'], { CONVOY_SEED: '5' })
    expect(await run.ended).toBe(2)
    expect(run.text).toMatch(/--seed -3/)
    const other = new Convoy(['train'], { CONVOY_SEED: 'x' })
    expect(await other.ended).toBe(2)
    expect(other.text).toMatch(/--seed x/)
  })

  it('doctor names what it would use', async () => {
    const run = new Convoy(['doctor', '--json'])
    expect(await run.ended).toBe(0)
    expect(run.lines.find(({ name }) => name === 'auto takes')).toMatchObject({ ok: true })
  })
})
