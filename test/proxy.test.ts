import { afterAll, describe, expect, it } from 'vitest'
import { Convoy, scratch } from './convoy.ts'
import { Gateway, Proxy, smallCoordinator } from './proxy.ts'

const { folder, remove } = scratch()
afterAll(remove)
const closing: (() => void)[] = []
afterAll(() => closing.forEach((close) => close()))

async function coordinator(...more: string[]): Promise<{ run: Convoy; port: number }> {
  const started = await smallCoordinator('--runs', folder, ...more)
  closing.push(() => started.run.child.kill('SIGKILL'))
  return started
}

function worker(url: string, ...more: string[]): Convoy {
  const run = new Convoy(['worker', '--coordinator', url, ...more])
  closing.push(() => run.child.kill('SIGKILL'))
  return run
}

describe('a worker behind a proxy', () => {
  it.each(['/convoy', '/convoy/'])('reaches a coordinator at the path %s', async (path) => {
    const token = ['--token', 'a-secret-token']
    const { run, port } = await coordinator('--name', `path${path.length}`, ...token)
    const proxy = new Proxy(port, { prefix: '/convoy' })
    closing.push(() => proxy.close())
    const other = worker(`ws://127.0.0.1:${await proxy.listen()}${path}`, ...token)
    expect((await run.done())['finished']).toBe(true)
    expect(await other.ended).toBe(0)
  })

  it('says so where the proxy passes no WebSockets on', async () => {
    const { port } = await coordinator('--name', 'plain')
    const proxy = new Proxy(port, { plainOnly: true })
    closing.push(() => proxy.close())
    const other = worker(`ws://127.0.0.1:${await proxy.listen()}`)
    expect(await other.ended).toBe(1)
    expect(other.text).toMatch(/E_HTTP: a proxy in between does not pass WebSockets on/)
  })

  // The network's parameters have 350 KB.
  const wide = ['--width', '0.25']

  it('is told of a gateway that closes with 1009 on long messages, and ends', async () => {
    const { run, port } = await coordinator('--name', 'words', ...wide)
    const gateway = new Gateway(port, 1 << 17, true)
    closing.push(() => gateway.close())
    const other = worker(`ws://127.0.0.1:${await gateway.listen()}`)
    expect(await other.ended).toBe(1)
    expect(other.text).toMatch(/E_TOO_LARGE: something between .* messages of 0\.3 MB/)
    await run.until((one) => one.lines.some((line) => /takes no messages/.test(JSON.stringify(line))))
  })

  it.each([
    ['parameters', false],
    ['gradients', true],
  ])('is told of a gateway that breaks off at %s, and gives up in the end', async (name, upOnly) => {
    const { port } = await coordinator('--name', name, ...wide)
    const gateway = new Gateway(port, 1 << 17, false, upOnly)
    closing.push(() => gateway.close())
    const other = worker(`ws://127.0.0.1:${await gateway.listen()}`, '--give-up-after', '3')
    expect(await other.ended).toBe(1)
    expect(other.text).toMatch(/E_TOO_LARGE: something between/)
    expect(other.text).not.toMatch(/E_UNREACHABLE/)
  })
})
