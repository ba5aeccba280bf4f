import { readFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch, type Line } from './convoy.ts'

const { folder, remove } = scratch()
afterAll(remove)

const small = [
  ...['--data', 'synthetic', '--limit-train', '320', '--limit-test', '40', '--width', '0.125'],
  ...['--batch-size', '32', '--micro-batch', '8', '--runs', folder, '--json'],
]
const coordinator = (...args: string[]) => new Convoy(['coordinator', ...small, ...args])
const steps = (run: Convoy): Line[] => run.lines.filter(({ event }) => event === 'step')

/** A line of ledger.jsonl: what was applied in a step, and who computed it. */
interface Entry {
  step: number
  epoch: number
  samples: number[]
  nodes: { lo: number; hi: number; worker: string }[]
}

/** The sum of a counter of `/metrics` over all labels; 0 where it has none yet. */
async function metric(url: string, name: string): Promise<number> {
  const answer = await fetch(`${url.replace('ws:', 'http:')}/metrics`)
  const lines = (await answer.text()).split('\n').filter((line) => line.replace(/[{ ].*/, '') === name)
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0)
}

describe('SIGTERM', () => {
  it('has a worker hand back its work and exit with 0: no sample is left out, or computed twice', async () => {
    // Many steps, so that a slow machine finds one to stop in the middle of.
    const [samples, batch, epochs] = [2_000, 1_000, 5]
    // A request a leaf, 125 a step: there is always one at hand, and others to hand back.
    const run = coordinator(
      ...['--limit-train', String(samples), '--batch-size', String(batch), '--epochs', String(epochs)],
      ...['--wire', 'bf16', '--wire-leaves', '1', '--ledger', '--stay', '--name', 'handed', '--port', '0'],
    )
    const url = await run.address()
    const start = (name: string) => new Convoy(['worker', '--coordinator', url, '--worker-name', name])
    const first = start('first')
    const computed = () => metric(url, 'convoy_worker_samples_total')
    const isWithinStep = async () => {
      const before = await computed()
      await sleep(100)
      return before % batch > 0 && before % batch < batch / 2 && (await computed()) === before
    }
    // It stands still in the middle of a step while that is found out.
    for (;;) {
      while ((await computed()) % batch === 0) await sleep(10)
      first.child.kill('SIGSTOP')
      if (await isWithinStep()) break
      first.child.kill('SIGCONT')
    }
    first.child.kill('SIGTERM')
    first.child.kill('SIGCONT')
    expect(await first.ended).toBe(0)
    // Nobody else was there to repeat anything: what it had begun is its own work.
    const handedBack = batch - ((await computed()) % batch)
    expect(handedBack).toBeGreaterThan(0)
    expect(handedBack).toBeLessThan(batch)

    const second = start('second')
    await run.until((one) => one.event('done'))
    expect(await metric(url, 'convoy_samples_total')).toBe(epochs * samples)
    expect(await computed()).toBe(epochs * samples)
    expect(await metric(url, 'convoy_wasted_samples_total')).toBe(0)
    run.child.kill('SIGTERM')
    expect([await run.ended, await second.ended]).toEqual([0, 0])

    const ledger = readFileSync(path.join(folder, 'handed', 'ledger.jsonl'), 'utf8')
    const steps = ledger
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Entry)
    expect(steps.map(({ step }) => step)).toEqual(
      Array.from({ length: (epochs * samples) / batch }, (_, i) => i),
    )
    for (let epoch = 0; epoch < epochs; epoch++) {
      const used = steps.filter((entry) => entry.epoch === epoch).flatMap((entry) => entry.samples)
      expect(used.sort((a, b) => a - b)).toEqual(Array.from({ length: samples }, (_, i) => i))
    }
    const shared = steps.filter(({ nodes }) => new Set(nodes.map(({ worker }) => worker)).size === 2)
    expect(shared).toHaveLength(1)
  })

  it('ends a worker with 0 though its coordinator stands still', async () => {
    const run = coordinator('--epochs', '1000', '--name', 'still', '--port', '0')
    const url = await run.address()
    const worker = new Convoy(['worker', '--coordinator', url, '--grace', '1'])
    await run.until((one) => steps(one).length >= 2)
    run.child.kill('SIGSTOP')
    worker.child.kill('SIGTERM')
    // It would wait 30 s for the connection's closing to be answered; a pod is killed after 20.
    const waited = await Promise.race([worker.ended, sleep(20_000, 'still there')])
    run.child.kill('SIGKILL')
    expect(waited).toBe(0)
  })

  it('ends a coordinator with a checkpoint and 0; its workers wait for the next one, to the same bits', async () => {
    const first = coordinator('--epochs', '3', '--name', 'moved', '--port', '0')
    const url = await first.address()
    const worker = new Convoy(['worker', '--coordinator', url, '--worker-name', 'patient'])
    await first.until((run) => steps(run).length >= 4)
    first.child.kill('SIGTERM')
    expect(await first.ended).toBe(0)
    const stopped = first.lines.at(-1)
    expect(stopped).toMatchObject({ event: 'done', finished: false })

    const second = coordinator('--epochs', '3', '--name', 'moved', '--port', new URL(url).port)
    const done = await second.done()
    expect(second.event('start')).toMatchObject({ resumedAt: stopped?.['step'] })
    expect(await worker.ended).toBe(0)
    expect(worker.text).toMatch(/the coordinator is stopping/)

    const alone = new Convoy(['train', ...small, '--epochs', '3', '--port', '0', '--workers', '1'])
    expect((await alone.done())['parametersSha256']).toBe(done['parametersSha256'])
  })

  it('ends a coordinator that waits for workers with 0, and one that stays after its run', async () => {
    const waiting = coordinator('--name', 'waiting', '--port', '0')
    await waiting.until((run) => run.event('listening'))
    waiting.child.kill('SIGTERM')
    expect(await waiting.ended).toBe(0)

    const staying = coordinator('--epochs', '1', '--name', 'staying', '--port', '0', '--stay')
    const url = await staying.address()
    const worker = new Convoy(['worker', '--coordinator', url])
    await staying.until((run) => run.event('done'))
    const answer = await fetch(`${url.replace('ws:', 'http:')}/healthz`)
    expect(await answer.text()).toBe('ok\n')
    staying.child.kill('SIGTERM')
    expect(await staying.ended).toBe(0)
    expect(await worker.ended).toBe(0)
    expect(worker.text).toMatch(/the run is over/)
  })

  it('is not needed by workers of a coordinator that stays, where it is to send them home', async () => {
    const options = ['--epochs', '1', '--name', 'dismissing', '--port', '0', '--stay', '--dismiss']
    const staying = coordinator(...options)
    const url = await staying.address()
    const worker = () => new Convoy(['worker', '--coordinator', url])
    const first = worker()
    expect(await first.ended).toBe(0)
    expect(first.text).toMatch(/the run is over/)
    // One that comes late is told as well, and nothing is said of either.
    const late = worker()
    expect(await late.ended).toBe(0)
    expect(late.text).toMatch(/the run is over/)
    expect(staying.lines.at(-1)).toMatchObject({ event: 'done', finished: true })
    const answer = await fetch(`${url.replace('ws:', 'http:')}/healthz`)
    expect(await answer.text()).toBe('ok\n')
    staying.child.kill('SIGTERM')
    expect(await staying.ended).toBe(0)
  })
})
