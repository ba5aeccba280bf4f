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

describe('SIGTERM', () => {
  it('ends a coordinator with a checkpoint and 0; its workers wait for the next one, to the same bits', async () => {
    const first = coordinator('--epochs', '3', '--name', 'moved', '--port', '0')
    const url = (await first.until((run) => run.event('listening')))['url'] as string
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
    const url = (await staying.until((run) => run.event('listening')))['url'] as string
    const worker = new Convoy(['worker', '--coordinator', url])
    await staying.until((run) => run.event('done'))
    const answer = await fetch(`${url.replace('ws:', 'http:')}/healthz`)
    expect(await answer.text()).toBe('ok\n')
    staying.child.kill('SIGTERM')
    expect(await staying.ended).toBe(0)
    expect(await worker.ended).toBe(0)
    expect(worker.text).toMatch(/the run is over/)
  })
})
