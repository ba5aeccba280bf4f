import { existsSync, readdirSync, statSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, it } from 'vitest'
import { checkLedger, faultyDisk } from './chaos/chaos.ts'
import { Convoy, scratch } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const settings = [
  ...['train', '--data', 'synthetic', '--limit-train', '450', '--limit-test', '20', '--width', '0.125'],
  ...['--batch-size', '50', '--micro-batch', '8', '--evaluate-every', '0', '--runs', folder, '--json'],
  ...['--workers', '1', '--port', '0', '--epochs', '100000'],
]
const epochSteps = 9
const start = (name: string, environment: NodeJS.ProcessEnv) =>
  new Convoy([...settings, '--name', name, '--ledger', '--checkpoint-every', '0.1'], environment)
const events = (run: Convoy, name: string) => run.lines.filter(({ event }) => event === name)
const newestStep = (run: Convoy) => Number(events(run, 'step').at(-1)?.['step'] ?? 0)

/** Ends a run and holds it against an undisturbed one, and its ledger against what was to be used. */
async function expectExact(run: Convoy, name: string): Promise<void> {
  run.child.kill('SIGTERM')
  const done = await run.done()
  const steps = Number(done['step'])
  const alone = await new Convoy([...settings, '--steps', String(steps)]).done()
  expect(done['parametersSha256']).toBe(alone['parametersSha256'])
  checkLedger(path.join(folder, name, 'ledger.jsonl'), { steps, epochSteps })
}

describe('a disk', () => {
  it.each([
    ['full', 'ENOSPC'],
    ['readOnly', 'EROFS'],
  ] as const)('that is %s for a while is told; training goes on, and nothing is lost', async (mode, code) => {
    const disk = faultyDisk(folder, mode)
    const run = start(mode, disk.environment)
    await run.until(() => run.event('checkpoint'))
    disk.set({ mode })
    await run.until(() => events(run, 'checkpointFailed').length >= 2 && run.event('logFailed'))
    expect(run.event('checkpointFailed')?.['message']).toContain(code)
    expect(run.event('logFailed')?.['message']).toContain(code)
    const last = events(run, 'checkpoint').at(-1)!['path'] as string
    expect(existsSync(last)).toBe(true)
    const then = newestStep(run)
    await run.until(() => newestStep(run) >= then + 5)
    disk.set({})
    await run.until(() => events(run, 'checkpoint').some(({ step }) => Number(step) >= then + 5))
    await expectExact(run, mode)
    expect(readdirSync(path.dirname(last)).filter((name) => !/^step-\d+\.convoy$/.test(name))).toEqual([])
  })

  it('that is slow keeps nobody waiting; killed in the middle of a write, a run goes on from the checkpoint before', async () => {
    const disk = faultyDisk(folder, 'slow')
    const first = start('slow', disk.environment)
    await first.until(() => first.event('checkpoint'))
    disk.set({ mode: 'slow', milliseconds: 600_000, files: '.tmp' })
    const checkpoints = path.join(folder, 'slow', 'checkpoints')
    const halves = () =>
      readdirSync(checkpoints).filter(
        (name) => name.endsWith('.tmp') && statSync(path.join(checkpoints, name)).size > 0,
      )
    // One that is there for long enough is not one of before.
    for (let seen = ''; ; await sleep(500)) {
      const [half = ''] = halves()
      if (half !== '' && half === seen) break
      seen = half
    }
    const [half] = halves()
    const then = newestStep(first)
    await first.until(() => newestStep(first) >= then + 2 * epochSteps)
    first.child.kill('SIGKILL')
    await first.ended
    expect(halves()).toEqual([half])

    disk.set({})
    const second = start('slow', disk.environment)
    const resumedAt = Number((await second.until(() => second.event('start')))['resumedAt'])
    expect(resumedAt).toBe(Number(events(first, 'checkpoint').at(-1)!['step']))
    expect(resumedAt).toBeLessThan(Number(/\d+/.exec(half)))
    // Beyond what the first one did and noted.
    await second.until(() => newestStep(second) > newestStep(first))
    await expectExact(second, 'slow')
    expect(halves()).toEqual([])
  })
})
